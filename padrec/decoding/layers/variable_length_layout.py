"""Rows of different lengths, read without their padding."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class VariableLengthLayout:
    """Where the tokens of B rows of at most M stand when they are put one behind the other.

    What looks at each token alone, as linear maps and norms do, then spends no time on padding. N is fixed before the
    lengths are known, so that there may be packed tokens behind the last row: these are padding again, their values may
    be anything, and no row gets them back.

    Attributes:
        places: of each packed token among the padded ones, row times M plus column, int64 `[N]`.
        starts: the packed place of each row's first token, and last the number of all rows' tokens, int64 `[B + 1]`.
        sources: the packed token that stands for each padded one, int64 `[B M]`; padding has its row's last token.
    """

    places: Tensor
    starts: Tensor
    sources: Tensor

    @classmethod
    def of(cls, lengths: Tensor, width: int, size: int) -> "VariableLengthLayout":
        """Pack rows, without asking the device for anything.

        Args:
            lengths: tokens of each row, int64 `[B]`, at least 1.
            width: M.
            size: N, at least the sum of the lengths.
        """
        starts = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
        place, column = (torch.arange(n, device=lengths.device) for n in (size, width))
        # What is behind the last row reads a token of that row once more.
        row = torch.searchsorted(starts[1:], place, right=True).clamp(max=len(lengths) - 1)
        places = row * width + (place - starts[row]).clamp(max=width - 1)
        sources = starts[:-1, None] + torch.minimum(column, lengths[:, None] - 1)
        return cls(places, starts, sources.flatten())

    def pack(self, padded: Tensor) -> Tensor:
        """Of padded tokens `[B M, *]` the packed ones, `[N, *]`."""
        return padded.index_select(0, self.places)

    def unpack(self, packed: Tensor) -> Tensor:
        """Of packed tokens `[N, *]` the padded ones, `[B M, *]`; in place of padding a row's last token is repeated."""
        return packed.index_select(0, self.sources)
