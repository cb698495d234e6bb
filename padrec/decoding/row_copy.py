"""Rows that move from one batch to another."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RowCopy:
    """Which rows of a batch are copied to which rows of another one.

    Attributes:
        take: rows of the batch that is read, int64 `[R]`.
        put: rows of the batch that is written to, int64 `[R]`. A row may be named twice if what it takes is too.
    """

    take: Tensor
    put: Tensor

    @classmethod
    def of(cls, take: Sequence[int], put: Sequence[int], device: torch.device) -> "RowCopy":
        """The rows as tensors on a device."""
        return cls(torch.tensor(take, device=device), torch.tensor(put, device=device))

    def __call__(self, source: Tensor, target: Tensor, dim: int = 0) -> None:
        """Copy rows of `source` into `target`, tensors that differ in their size along `dim` alone."""
        target.index_copy_(dim, self.put, source.index_select(dim, self.take))
