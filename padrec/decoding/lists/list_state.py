"""The states of lists while they are written."""

from dataclasses import dataclass, fields, replace
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
    joined = {field.name: torch.cat([getattr(state, field.name) for state in states], 1) for field in fields(states[0])}
    return replace(states[0], **joined)
