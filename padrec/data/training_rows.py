"""Training rows: what users did and lists that a target generated, cut into windows, and the batches made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from padrec.catalog import Catalog, InputError
from padrec.data.batches import SequenceBatch
from padrec.data.interactions import Split
from padrec.data.item_sequences import ItemSequences
from padrec.data.json_file import read_json_lines
from padrec.data.sequence_encoder import SequenceEncoder

_EXPECTED = '{"user": key, "history": [item key, …], "items": [item key, …]}'
FILLER_ROW = -1
"""The index of a row without supervision, for a process without a row of its own in a batch."""


class TrainingRows(Protocol):
    """A source of training rows. With this protocol as its base class, a config can name it by its class alone."""

    def windows(self, split: Split, catalog: Catalog, max_history: int, list_length: int) -> "Windows":
        """Read or cut the rows; called once, before a fit. No rows, and a wrong file, are an InputError.

        A prompt has at most `max_history` items of history, a list `list_length` items.
        """


class LoggedSequences(TrainingRows):
    """The training items of every user, cut into windows that predict each item once; see `cut_windows`."""

    def windows(self, split: Split, catalog: Catalog, max_history: int, list_length: int) -> "Windows":
        """See `TrainingRows`."""
        windows = cut_windows(split.train, max_history, list_length)
        if len(windows.starts) == 0:
            raise InputError(f"{split.source}: no user has items to train on, expected some")
        return windows


@dataclass(frozen=True)
class GeneratedLists(TrainingRows):
    """Lists after the histories that they were generated from; only the lists are predicted.

    Args:
        paths: JSON-lines files, at least one, such as `RecommendationWriter` writes; see `read_generated_lists`.
    """

    paths: list[str]

    def __post_init__(self) -> None:
        if not self.paths:
            raise InputError("no files of generated lists, expected at least one")

    def windows(self, split: Split, catalog: Catalog, max_history: int, list_length: int) -> "Windows":
        """See `TrainingRows` and `read_generated_lists`."""
        return list_windows(*read_generated_lists(self.paths, catalog, max_history, list_length))


def read_generated_lists(
    paths: Sequence[str], catalog: Catalog, max_history: int, list_length: int
) -> tuple[ItemSequences, ItemSequences]:
    """Read JSON-lines files with a row `{"user": key, "history": [item key, …], "items": [item key, …]}` per list.

    Returns histories, of which at most the last `max_history` items, and lists as item indices, one row per list.

    Raises:
        InputError: a file is missing or empty, or a line is malformed, names an unknown item, or has no history, no
            items or more than `list_length` items; names the file and the line.
    """
    histories: list[list[int]] = []
    lists: list[list[int]] = []
    for path in paths:
        for place, row in read_json_lines(Path(path), _EXPECTED):
            history, items = (_items(place, row, field, catalog) for field in ("history", "items"))
            if len(items) > list_length:
                raise InputError(f"{place}: a list of {len(items)} items, expected at most list_length = {list_length}")
            histories.append(history[-max_history:])
            lists.append(items)
    return ItemSequences.from_lists(histories), ItemSequences.from_lists(lists)


def _items(place: str, row: Mapping[str, object], field: str, catalog: Catalog) -> list[int]:
    keys = row.get(field)
    if not isinstance(keys, list) or not keys:
        raise InputError(f'{place}: "{field}" is {keys!r}, expected item keys as in {_EXPECTED}')
    if None in keys:
        raise InputError(f'{place}: "{field}" has null for tokens that are no item, expected lists of items only')
    try:
        return [catalog.index(str(key)) for key in keys]
    except InputError as error:
        raise InputError(f'{place}: "{field}": {error}') from None


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
