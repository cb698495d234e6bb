"""Where the tokens of one pass stand."""

from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.decoding.layers.variable_length_layout import VariableLengthLayout


@dataclass(frozen=True)
class Placement:
    """Where the tokens of one pass stand, behind what the cache already holds.

    Token i of row b is written to column `lengths[b] + first + i`. It sees the columns before `lengths[b]` and, of
    those behind, itself and its ancestors.

    Attributes:
        lengths: columns of each row that hold its past, int64 `[B]`.
        depths: how far behind its row's past each token stands in its text, int64 `[B, M]`: its position is
            `lengths[b] + depths[b, i]`.
        first: columns behind the past that earlier passes of this tree have filled.
        ancestors: bool `[B, M, R]`, R at least `first + M`; `[b, i, j]` says that token i sees column
            `lengths[b] + j`. None where the tokens are a chain, each of which sees all before it; `first` is then 0.
        layout: of the rows, where they are not equally long. Only tokens of the rows are then read, and only their
            results count; N packed tokens stand for the `B M` ones of linear maps.
    """

    lengths: Tensor
    depths: Tensor
    first: int = 0
    ancestors: Tensor | None = None
    layout: VariableLengthLayout | None = None


def visible_columns(placement: Placement, columns: int) -> Tensor:
    """Which columns each token sees, bool `[B, M, columns]`."""
    width = placement.depths.shape[1]
    # How far each column lies behind the past, [B, S].
    behind = torch.arange(columns, device=placement.lengths.device) - placement.lengths[:, None]
    if placement.ancestors is None:
        return behind[:, None] <= torch.arange(width, device=behind.device)[:, None]
    past = (behind < 0)[:, None]
    n_tree = placement.ancestors.shape[2]
    at = behind.clamp(0, n_tree - 1)[:, None].expand(-1, width, -1)
    return past | (placement.ancestors.gather(2, at) & ((behind >= 0) & (behind < n_tree))[:, None])
