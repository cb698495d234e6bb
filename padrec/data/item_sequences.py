"""Item sequences of different lengths in two flat tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class ItemSequences:
    """Concatenated rows of item indices."""

    items: Tensor  # item indices of all rows, int64 [n]
    offsets: Tensor  # start of each row, and the end of the last, int64 [rows + 1]

    @classmethod
    def from_lists(cls, rows: Sequence[Sequence[int]]) -> "ItemSequences":
        """Concatenate lists of item indices."""
        items = np.array([item for row in rows for item in row], dtype=np.int64)
        offsets = np.cumsum([0, *map(len, rows)])
        return cls(torch.from_numpy(items), torch.from_numpy(offsets))

    @classmethod
    def from_lengths(cls, items: Tensor, lengths: Tensor) -> "ItemSequences":
        """Rows of these lengths, int64 `[rows]`, that stand one after the other in `items`, int64 `[n]`."""
        return cls(items, _offsets(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def starts(self) -> Tensor:
        """Position in `items` of each row's first item, int64 `[rows]`."""
        return self.offsets[:-1]

    @property
    def ends(self) -> Tensor:
        """Position in `items` after each row's last item, int64 `[rows]`."""
        return self.offsets[1:]

    @property
    def lengths(self) -> Tensor:
        """Items in each row, int64 `[rows]`."""
        return self.ends - self.starts

    def row(self, index: int) -> Tensor:
        """Return the items of one row, int64 `[length]`."""
        return self.items[int(self.offsets[index]) : int(self.offsets[index + 1])]

    def slices(self, starts: Tensor, ends: Tensor) -> "ItemSequences":
        """Return the stretches of `items` from `starts` to before `ends`, int64 `[new rows]`, as new rows."""
        lengths = ends - starts
        return ItemSequences(self.items[_positions(starts, lengths)], _offsets(lengths))

    def select(self, rows: Tensor) -> "ItemSequences":
        """Return the rows with these indices (int64 `[new rows]`), in their order."""
        return self.slices(self.starts[rows], self.ends[rows])

    def last(self, count: int) -> "ItemSequences":
        """Return at most the last `count` items of every row."""
        return self.slices(torch.maximum(self.starts, self.ends - count), self.ends)

    def followed_by(self, other: "ItemSequences") -> "ItemSequences":
        """Append to every row the same row of `other`."""
        offsets = self.offsets + other.offsets
        items = torch.empty(len(self.items) + len(other.items), dtype=torch.long)
        items[_positions(offsets[:-1], self.lengths)] = self.items
        items[_positions(offsets[:-1] + self.lengths, other.lengths)] = other.items
        return ItemSequences(items, offsets)

    def appended(self, other: "ItemSequences") -> "ItemSequences":
        """Return these rows, then those of `other`."""
        offsets = torch.cat([self.offsets, other.offsets[1:] + self.offsets[-1]])
        return ItemSequences(torch.cat([self.items, other.items]), offsets)

    def padded(self) -> Tensor:
        """Return a table of all rows, int64 `[rows, longest]`, padded with -1 on the right."""
        return torch.from_numpy(padded_rows(self.items.numpy(), np.diff(self.offsets.numpy())))


def padded_rows(values: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """A table `[rows, longest]` of rows that stand one after the other in `values`, padded with -1 on the right."""
    table = np.full((len(lengths), lengths.max(initial=0)), -1)
    table[np.arange(table.shape[1]) < lengths[:, None]] = values
    return table


def _offsets(lengths: Tensor) -> Tensor:
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def _positions(starts: Tensor, lengths: Tensor) -> Tensor:
    """Positions `start … start + length - 1` of all rows, concatenated."""
    shift = (starts - _offsets(lengths)[:-1]).repeat_interleave(lengths)
    return torch.arange(len(shift)) + shift
