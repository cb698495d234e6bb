"""The states of lists while they are written."""

from dataclasses import dataclass
from typing import Self, TypeVar

import torch
from torch import Tensor

from padrec.decoding.lists.tensor_record import TensorRecord, pick


@dataclass(frozen=True)
class ListState(TensorRecord):
    """States of unfinished lists; the leading dimensions `[*]` are rows, or rows × tree nodes."""

    slot: Tensor  # of the last token, int64 [*]

    def gather(self, index: Tensor) -> Self:
        """Pick states `[B, R]` from states `[B, M]` by `index`, int64 `[B, R]`."""
        return self.map(lambda value: pick(value, index))

    def unsqueeze(self) -> Self:
        """Turn states `[B]` into `[B, 1]`."""
        return self.map(lambda value: value[:, None])

    def squeeze(self) -> Self:
        """Turn states `[B, 1]` into `[B]`."""
        return self.map(lambda value: value[:, 0])


S = TypeVar("S", bound=ListState)


def concatenate(states: list[S]) -> S:
    """Join states `[B, M_1]`, `[B, M_2]`, … to `[B, M_1 + M_2 + …]`."""
    return states[0].map(lambda *parts: torch.cat(parts, 1), *states[1:])
