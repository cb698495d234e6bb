"""Where the tokens of one pass are in their rows, in the cache and in a packed batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.decoding.lists.tensor_record import pick


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
    later ones, itself and its ancestors. With `chain`, each row begins with a chain that its tree continues.

    Attributes:
        lengths: columns of each row that hold its past, int64 `[B]`.
        depths: distance of each token from the end of its row's past, int64 `[B, M]`.
        first: columns after the past that earlier passes of this tree filled.
        ancestors: bool `[B, M, R]`, R at least `first + M`; `[b, i, j]` says that token i sees column
            `lengths[b] + j`. None for a chain, where each token sees all before it; `first` is then 0.
        layout: of rows of different lengths, whose padding is then neither read nor computed; `B M` in the shapes of
            linear maps becomes N.
        chain: tokens of each row that precede its tree and each see all before them, int64 `[B]`. The tree's tokens see
            the whole chain. `ancestors`, then bool `[B, T, R]`, counts tokens and columns from the end of the chain;
            tokens after the T of the tree are padding that no other token sees; `first` is 0.
    """

    lengths: Tensor
    depths: Tensor
    first: int = 0
    ancestors: Tensor | None = None
    layout: VariableLengthLayout | None = None
    chain: Tensor | None = None

    @property
    def positions(self) -> Tensor:
        """The tokens' positions in their texts, int64 `[B, M]`."""
        return self.lengths[:, None] + self.depths

    @property
    def columns(self) -> Tensor:
        """Columns of the cache that the tokens are written to, int64 `[B, M]`."""
        return self.lengths[:, None] + self.first + torch.arange(self.depths.shape[1], device=self.lengths.device)


def visible_columns(placement: Placement, columns: int) -> Tensor:
    """The columns that each token sees, bool `[B, M, columns]`."""
    width, tree, chain = placement.depths.shape[1], placement.ancestors, placement.chain
    # Distance of each column from the end of the past, [B, S].
    after = torch.arange(columns, device=placement.lengths.device) - placement.lengths[:, None]
    token = torch.arange(width, device=after.device)
    before = after[:, None] <= token[:, None]
    if tree is None:
        return before
    if chain is None:
        return (after < 0)[:, None] | _in_tree(tree, token.expand(len(after), -1), after)
    branches = _in_tree(tree, token - chain[:, None], after - chain[:, None])
    return (before & (after < chain[:, None])[:, None]) | branches


def _in_tree(ancestors: Tensor, token: Tensor, column: Tensor) -> Tensor:
    """The columns `[B, S]` of a tree that its tokens `[B, M]` see, bool `[B, M, S]`; none where either is outside."""
    n_tokens, n_columns = ancestors.shape[1:]
    rows = pick(ancestors, token.clamp(0, n_tokens - 1))
    found = rows.gather(2, column.clamp(0, n_columns - 1)[:, None].expand(-1, token.shape[1], -1))
    inside = ((column >= 0) & (column < n_columns))[:, None] & ((token >= 0) & (token < n_tokens))[..., None]
    return found & inside
