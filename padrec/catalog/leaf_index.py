"""Which leaf has these codes."""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_LARGEST_NUMBER = torch.iinfo(torch.int64).max


class _Digits(NamedTuple):
    """Slots whose codes are the digits of one number, after the rank that the slots before them have led to."""

    slots: slice
    places: NDArray[np.int64]  # what each code counts, [slots]
    base: int  # what the rank counts
    numbers: NDArray[np.int64]  # those of all leaves, each once, sorted; its place among them is the next rank


class LeafIndex:
    """Finds leaves by their semantic IDs: one search in a sorted table, or a few where codes need more than 63 bits.

    `leaf_codes` are all semantic IDs in lexicographic order, int64 `[n_leaves, L]`, on the CPU.
    """

    def __init__(self, leaf_codes: Tensor) -> None:
        # Arrays, whose operations take a fifth of a tensor's time on lists as few as a service's.
        self._widths = (leaf_codes.amax(0) + 1).numpy()
        self._digits: list[_Digits] = []
        widths: list[int] = self._widths.tolist()
        rank, first = torch.zeros(len(leaf_codes), dtype=torch.long), 0
        while first < len(widths):
            last = first + 1
            while last < len(widths) and len(leaf_codes) * math.prod(widths[first : last + 1]) <= _LARGEST_NUMBER:
                last += 1
            places = torch.tensor([math.prod(widths[slot + 1 : last]) for slot in range(first, last)])
            slots, base = slice(first, last), math.prod(widths[first:last])
            # In the order of the leaves they are sorted.
            numbers, rank = torch.unique_consecutive(
                rank * base + (leaf_codes[:, slots] * places).sum(1), return_inverse=True
            )
            self._digits.append(_Digits(slots, places.numpy(), base, numbers.numpy()))
            first = last

    def find(self, codes: Tensor) -> Tensor:
        """The leaf of each semantic ID, int64 `[M]`, -1 where there is none; `codes` is int64 `[M, L]`, any value."""
        given = codes.numpy()
        inside = (given >= 0) & (given < self._widths)
        digit, known = np.where(inside, given, 0), inside.all(1)
        leaf = np.zeros(len(given), dtype=np.int64)
        for digits in self._digits:
            number = leaf * digits.base + (digit[:, digits.slots] * digits.places).sum(1)
            leaf = np.minimum(np.searchsorted(digits.numbers, number), len(digits.numbers) - 1)
            known &= digits.numbers[leaf] == number
        return torch.from_numpy(np.where(known, leaf, -1))
