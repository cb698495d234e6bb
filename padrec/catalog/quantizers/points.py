"""Points to cluster that are never all in memory twice."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor


class Points(Protocol):
    """Vectors that are read batch by batch, on the device that computes with them."""

    def __len__(self) -> int:
        """Number of points."""
        ...

    def rows(self, index: slice | Tensor) -> Tensor:
        """Some of the points.

        Args:
            index: a range, or row numbers int64 `[m]` on the CPU.

        Returns:
            Float `[m, d]`, on the computing device.
        """
        ...


class Residuals:
    """What is left of vectors once the codes of the slots so far are subtracted.

    The residuals of a slot are computed whenever they are read: kept, they would take as much memory as the vectors.

    Args:
        vectors: floating point `[n, d]`, where they happen to be.
        codebooks: of the slots so far, each `[K, d]`, on the computing device.
        codes: of the slots so far, int `[n, len(codebooks)]`, on the vectors' device.
        device: that computes.
    """

    def __init__(self, vectors: Tensor, codebooks: list[Tensor], codes: Tensor, device: torch.device) -> None:
        self._vectors = vectors
        self._codebooks = codebooks
        self._codes = codes
        self._device = device

    def __len__(self) -> int:
        """Number of points."""
        return len(self._vectors)

    def rows(self, index: slice | Tensor) -> Tensor:
        """See `Points`."""
        points = self._vectors[index].to(self._device)  # [m, d]
        codes = self._codes[index].to(self._device).long()  # [m, slots so far]
        for slot, codebook in enumerate(self._codebooks):
            points = points - codebook[codes[:, slot]]
        return points


def batches(n_rows: int, batch_size: int) -> Iterator[slice]:
    """Consecutive ranges of at most `batch_size` rows."""
    for start in range(0, n_rows, batch_size):
        yield slice(start, min(start + batch_size, n_rows))
