"""Where lists stand while they are written."""

from dataclasses import dataclass, fields, replace
from typing import Self, TypeVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class ListState:
    """Where generated lists stand; the leading dimensions `[*]` are rows, or rows × tree nodes.

    Attributes:
        slot: slot of the last token, int64 `[*]`.
    """

    slot: Tensor

    def gather(self, index: Tensor) -> Self:
        """States `[B, M]` picked by `index`, int64 `[B, R]`: states `[B, R]`."""
        picked = {}
        for field in fields(self):
            value: Tensor = getattr(self, field.name)
            at = index.view(*index.shape, *[1] * (value.ndim - 2)).expand(*index.shape, *value.shape[2:])
            picked[field.name] = value.gather(1, at)
        return replace(self, **picked)

    def clone(self) -> Self:
        """States of the same values in memory of their own."""
        return replace(self, **{field.name: getattr(self, field.name).clone() for field in fields(self)})

    def copy_(self, other: Self) -> None:
        """Take over the values of states of the same shape."""
        for field in fields(self):
            getattr(self, field.name).copy_(getattr(other, field.name))

    def unsqueeze(self) -> Self:
        """States `[B]` as states `[B, 1]`."""
        return replace(self, **{field.name: getattr(self, field.name)[:, None] for field in fields(self)})

    def squeeze(self) -> Self:
        """States `[B, 1]` as states `[B]`."""
        return replace(self, **{field.name: getattr(self, field.name)[:, 0] for field in fields(self)})


S = TypeVar("S", bound=ListState)


def concatenate(states: list[S]) -> S:
    """States `[B, M_1]`, `[B, M_2]`, … as states `[B, M_1 + M_2 + …]`."""
    joined = {field.name: torch.cat([getattr(state, field.name) for state in states], 1) for field in fields(states[0])}
    return replace(states[0], **joined)
