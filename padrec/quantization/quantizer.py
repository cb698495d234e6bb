"""What turns item embeddings into semantic IDs."""

from typing import Protocol

from torch import Tensor


class Quantizer(Protocol):
    """A fitted quantizer: every slot's codebook refines what the slots before it left over."""

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codes in each slot."""
        ...

    def encode(self, vectors: Tensor) -> Tensor:
        """The semantic IDs of items.

        Args:
            vectors: item embeddings, floating point `[n, d]`.

        Returns:
            The nearest code in every slot, int64 `[n, L]`, on the CPU.
        """
        ...

    def distances(self, vectors: Tensor, prefix: Tensor) -> Tensor:
        """How far items are from each code of the slot behind a prefix.

        Args:
            vectors: item embeddings, floating point `[n, d]`.
            prefix: the items' codes in the first slots, int64 `[n, fewer than L]`, any codes of those slots.

        Returns:
            Squared distances `[n, codes of the slot]`, on the CPU.
        """
        ...
