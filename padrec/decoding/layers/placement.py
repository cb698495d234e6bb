"""Where the tokens of one pass are in their rows, in the cache and in a packed batch."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class VariableLengthLayout:
    """The tokens of B rows, each at most M long, packed one row after the other.

    Linear maps and norms, which treat each token alone, then spend no time on padding. N is fixed before the lengths
    are known, so tokens after the last row are padding too: they may hold anything, and `unpack` ignores them.
    """

    places: Tensor  # padded place of each packed token, row times M plus column, int64 [N]
    starts: Tensor  # packed place of each row's first token, then the number of all rows' tokens, int64 [B + 1]
    sources: Tensor  # packed place of each padded token, int64 [B M]; padding has that of its row's last token

    @classmethod
    def of(cls, lengths: Tensor, width: int, size: int) -> "VariableLengthLayout":
        """Pack rows of `lengths` tokens, int64 `[B]`, from 1 to `width`; `size` is N, at least their sum."""
        starts = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        place, column = (torch.arange(n, device=lengths.device) for n in (size, width))
        # Tokens after the last row repeat one of that row.
        row = torch.searchsorted(starts[1:], place, right=True).clamp(max=len(lengths) - 1)
        places = row * width + (place - starts[row]).clamp(max=width - 1)
        sources = starts[:-1, None] + torch.minimum(column, lengths[:, None] - 1)
        return cls(places, starts, sources.flatten())

    def pack(self, padded: Tensor) -> Tensor:
        """Pack padded tokens `[B M, *]` to `[N, *]`."""
        return padded.index_select(0, self.places)

    def unpack(self, packed: Tensor) -> Tensor:
        """Pad packed tokens `[N, *]` to `[B M, *]`, repeating each row's last token."""
        return packed.index_select(0, self.sources)


@dataclass(frozen=True)
class Placement:
    """Where the tokens of one pass are, relative to what the cache already holds.

    Token i of row b is written to column `lengths[b] + first + i`. It sees the columns before `lengths[b]` and, of the
    later ones, itself and its ancestors.

    Attributes:
        lengths: columns of each row that hold its past, int64 `[B]`.
        depths: distance of each token from the end of its row's past, int64 `[B, M]`: its position in the text is
            `lengths[b] + depths[b, i]`.
        first: columns after the past that earlier passes of this tree filled.
        ancestors: bool `[B, M, R]`, R at least `first + M`; `[b, i, j]` says that token i sees column
            `lengths[b] + j`. None for a chain, where each token sees all before it; `first` is then 0.
        layout: of rows of different lengths, whose padding is then neither read nor computed; `B M` in the shapes of
            linear maps becomes N.
    """

    lengths: Tensor
    depths: Tensor
    first: int = 0
    ancestors: Tensor | None = None
    layout: VariableLengthLayout | None = None


def visible_columns(placement: Placement, columns: int) -> Tensor:
    """The columns that each token sees, bool `[B, M, columns]`."""
    width = placement.depths.shape[1]
    # Distance of each column from the end of the past, [B, S].
    after = torch.arange(columns, device=placement.lengths.device) - placement.lengths[:, None]
    if placement.ancestors is None:
        return after[:, None] <= torch.arange(width, device=after.device)[:, None]
    past = (after < 0)[:, None]
    n_tree = placement.ancestors.shape[2]
    index = after.clamp(0, n_tree - 1)[:, None].expand(-1, width, -1)
    return past | (placement.ancestors.gather(2, index) & ((after >= 0) & (after < n_tree))[:, None])
