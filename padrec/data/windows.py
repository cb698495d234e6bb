"""Windows of item sequences to train on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.data.item_sequences import ItemSequences


@dataclass(frozen=True)
class Windows:
    """Stretches of flat item sequences.

    Attributes:
        sequences: the sequences that the windows lie in.
        starts: position of each window's first item in the flat items, int64 `[n]`.
        supervised_from: position of the first item that is to be predicted, int64 `[n]`.
        ends: position behind the last item, int64 `[n]`.
        lists: bool `[n]`, True where what is to be predicted is a list, False where it is what the user did.
    """

    sequences: ItemSequences
    starts: Tensor
    supervised_from: Tensor
    ends: Tensor
    lists: Tensor

    def appended(self, other: "Windows") -> "Windows":
        """These windows, then those of `other`."""
        shift = len(self.sequences.items)
        return Windows(
            self.sequences.appended(other.sequences),
            torch.cat([self.starts, other.starts + shift]),
            torch.cat([self.supervised_from, other.supervised_from + shift]),
            torch.cat([self.ends, other.ends + shift]),
            torch.cat([self.lists, other.lists]),
        )


def cut_windows(sequences: ItemSequences, max_history: int, list_length: int) -> Windows:
    """Windows in which every item is predicted exactly once, from as much history as a prompt may hold.

    A window holds at most `max_history + list_length` items. The first of a sequence supervises all its items; each
    later one opens with `max_history` items of history and supervises the next `list_length`. So a list at every cut
    point is trained with at least `min(cut, max_history)` items before it.

    Args:
        sequences: one row per user; empty rows have no window.
        max_history: items of history that a prompt may hold.
        list_length: K, items in a list.
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
    """One window per list: its history, then the list, of which alone the tokens are to be predicted."""
    joined = histories.followed_by(lists)
    every = torch.ones(len(joined), dtype=torch.bool)
    return Windows(joined, joined.starts, joined.starts + histories.lengths, joined.ends, every)
