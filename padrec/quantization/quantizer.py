"""The interface of quantizers, which turn item embeddings into semantic IDs."""

from typing import Protocol

from torch import Tensor


class Quantizer(Protocol):
    """A fitted residual quantizer: each slot's codebook refines the residual of the slots before it."""

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codes in each slot."""

    def encode(self, vectors: Tensor) -> Tensor:
        """Return the nearest code in every slot, int64 `[n, L]` on the CPU, for embeddings `[n, d]`."""

    def distances(self, vectors: Tensor, prefix: Tensor) -> Tensor:
        """Squared distances of embeddings `[n, d]` to each code of the slot that follows a prefix, `[n, K]` on the CPU.

        The prefix is any codes in the first slots, int64 `[n, fewer than L]`.
        """
