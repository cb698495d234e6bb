"""Training rows, one batch at a time."""

import torch
from torch import Tensor
from torch.utils.data import Dataset

from padrec.data.batches import SequenceBatch
from padrec.data.sequence_encoder import SequenceEncoder
from padrec.data.windows import Windows

FILLER_ROW = -1
"""The index of a row without supervision, for a process that has no row of its own in a batch."""


class TrainingRows(Dataset[SequenceBatch]):
    """Windows as batches: indexed with a list of rows, since the sampler yields whole batches.

    Args:
        windows: the rows.
        encoder: writes them as tokens.
        list_marker: whether `<eos>` stands between a history and the list behind it.
    """

    def __init__(self, windows: Windows, encoder: SequenceEncoder, list_marker: bool = False) -> None:
        self.windows = windows
        self.encoder = encoder
        self.list_marker = list_marker

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
        tokens, slots, lengths = self.encoder.encode(items)
        position = starts[:, None] + torch.arange(items.shape[1])  # [B, N]
        supervised = (position >= supervised_from[:, None]) & (position < ends[:, None])
        flags = self.encoder.per_token(supervised, bos=False)
        if self.list_marker:
            lists = self.windows.lists[index]
            histories = (self.windows.supervised_from[index] - starts).where(lists, -1)
            tokens, slots = self.encoder.mark_lists(tokens, slots, histories)
            flags = self.encoder.make_room(flags, histories, marker=False, padding=False)
            lengths = lengths + lists.long()
        return SequenceBatch(tokens, slots, lengths, flags)
