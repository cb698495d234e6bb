"""Training rows, one batch at a time."""

import torch
from torch import Tensor
from torch.utils.data import Dataset

from padrec.data.batches import SequenceBatch
from padrec.data.sequence_encoder import SequenceEncoder
from padrec.data.windows import Windows

FILLER_ROW = -1
"""The index of a row without supervision, for a process that has no row of its own in a batch."""


class WindowRows(Dataset[SequenceBatch]):
    """Windows as batches: indexed with a list of rows, since the sampler yields whole batches.

    A window that opens with history has its list behind that. In one that supervises all of its items a random place
    is drawn, behind the first item, where the history ends and the list begins: only a template writes these in
    different ways. A list marker goes into generated lists alone.

    Args:
        windows: the rows.
        encoder: writes them as tokens.
        seed: of the places where lists begin.
    """

    def __init__(self, windows: Windows, encoder: SequenceEncoder, seed: int = 0) -> None:
        self.windows = windows
        self.encoder = encoder
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.rand(len(windows.starts), generator=generator, dtype=torch.float64)
        history = windows.supervised_from - windows.starts
        self._history = torch.where(history > 0, history, 1 + (drawn * (self.lengths - 1)).long())  # [n], in items

    def __len__(self) -> int:
        return len(self.windows.starts)

    @property
    def lengths(self) -> Tensor:
        """Items in each row, int64 `[n]`."""
        return self.windows.ends - self.windows.starts

    def __getitem__(self, rows: int | list[int]) -> SequenceBatch:
        """The batch of these rows; `FILLER_ROW` gives a row without supervision."""
        index = torch.tensor([rows] if isinstance(rows, int) else rows)
        starts, ends = self.windows.starts[index], self.windows.ends[index]
        supervised_from = self.windows.supervised_from[index].where(index != FILLER_ROW, ends)
        items = self.windows.sequences.slices(starts, ends).padded()  # [B, N]
        encoded = self.encoder.encode(items, self._history[index], self.windows.lists[index])
        position = starts[:, None] + torch.arange(items.shape[1])  # [B, N]
        supervised = (position >= supervised_from[:, None]) & (position < ends[:, None])
        return SequenceBatch(encoded.tokens, encoded.slots, encoded.lengths, encoded.per_token(supervised))
