"""Windows of item sequences, and the training batches made of them."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from padrec.data.batches import SequenceBatch
from padrec.data.item_sequences import ItemSequences
from padrec.data.sequence_encoder import SequenceEncoder

FILLER_ROW = -1
"""The index of a row without supervision, for a process without a row of its own in a batch."""


@dataclass(frozen=True)
class Windows:
    """Stretches of flat item sequences."""

    sequences: ItemSequences  # that contain the windows
    starts: Tensor  # position of each window's first item in the flat items, int64 [n]
    supervised_from: Tensor  # position of the first item to predict, int64 [n]
    ends: Tensor  # position after the last item, int64 [n]
    lists: Tensor  # bool [n], True if the items to predict are a list, False if they are what the user did

    def appended(self, other: "Windows") -> "Windows":
        """Return these windows, then those of `other`."""
        shift = len(self.sequences.items)
        return Windows(
            self.sequences.appended(other.sequences),
            torch.cat([self.starts, other.starts + shift]),
            torch.cat([self.supervised_from, other.supervised_from + shift]),
            torch.cat([self.ends, other.ends + shift]),
            torch.cat([self.lists, other.lists]),
        )


def cut_windows(sequences: ItemSequences, max_history: int, list_length: int) -> Windows:
    """Cut windows that predict every item exactly once, with as much history as a prompt may hold.

    A window holds at most `max_history + list_length` items. The first window of a sequence supervises all its items;
    each later one starts with `max_history` items of history and supervises the next `list_length`. So a list at any
    cut point has at least `min(cut, max_history)` items before it in training. Empty sequences have no window.
    """
    lengths = sequences.lengths
    later = (lengths - max_history - list_length).clamp(min=0)
    counts = (lengths > 0).long() + later.add(list_length - 1).div(list_length, rounding_mode="floor")
    rows = torch.arange(len(sequences)).repeat_interleave(counts)
    number = torch.arange(len(rows)) - (counts.cumsum(0) - counts)[rows]  # of the window within its row
    starts = sequences.starts[rows] + number * list_length
    ends = torch.minimum(starts + max_history + list_length, sequences.ends[rows])
    supervised_from = torch.where(number == 0, starts, starts + max_history)
    return Windows(sequences, starts, supervised_from, ends, torch.zeros_like(ends, dtype=torch.bool))


def list_windows(histories: ItemSequences, lists: ItemSequences) -> Windows:
    """Return one window per list: its history, then the list, which alone is supervised."""
    joined = histories.followed_by(lists)
    every = torch.ones(len(joined), dtype=torch.bool)
    return Windows(joined, joined.starts, joined.starts + histories.lengths, joined.ends, every)


class WindowRows(Dataset[SequenceBatch]):
    """Windows as batches, indexed with a list of rows.

    The list of a window follows its history. In a window that supervises all its items, the history ends at a random
    place after the first item, drawn by the seed; only a template writes history and list differently. List markers are
    for windows of lists only.
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
        """Return the batch of these rows; `FILLER_ROW` gives a row without supervision."""
        index = torch.tensor([rows] if isinstance(rows, int) else rows)
        starts, ends = self.windows.starts[index], self.windows.ends[index]
        supervised_from = self.windows.supervised_from[index].where(index != FILLER_ROW, ends)
        items = self.windows.sequences.slices(starts, ends).padded()  # [B, N]
        encoded = self.encoder.encode(items, self._history[index], self.windows.lists[index])
        position = starts[:, None] + torch.arange(items.shape[1])  # [B, N]
        supervised = (position >= supervised_from[:, None]) & (position < ends[:, None])
        return SequenceBatch(
            tokens=encoded.tokens,
            slots=encoded.slots,
            lengths=encoded.lengths,
            supervised=encoded.per_token(supervised, other=False),
            items=encoded.per_token(items, other=-1),
        )
