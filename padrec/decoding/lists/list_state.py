"""The states of lists while they are written."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Self, TypeVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class ListState:
    """States of unfinished lists; the leading dimensions `[*]` are rows, or rows × tree nodes.

    Attributes:
        slot: slot of the last token, int64 `[*]`.
    """

    slot: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to every tensor."""
        return replace(self, **{field.name: change(getattr(self, field.name)) for field in fields(self)})

    def gather(self, index: Tensor) -> Self:
        """Pick states `[B, R]` from states `[B, M]` by `index`, int64 `[B, R]`."""

        def pick(value: Tensor) -> Tensor:
            wide = index.view(*index.shape, *[1] * (value.ndim - 2)).expand(*index.shape, *value.shape[2:])
            return value.gather(1, wide)

        return self.map(pick)

    def clone(self) -> Self:
        """Copy all tensors."""
        return self.map(lambda value: value.clone())

    def copy_(self, other: Self) -> None:
        """Overwrite the values with those of states of the same shape."""
        for field in fields(self):
            getattr(self, field.name).copy_(getattr(other, field.name))

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
