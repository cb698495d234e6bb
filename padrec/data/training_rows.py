"""Sources of training rows: what users did, and lists that a target generated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from padrec.catalog import Catalog, InputError
from padrec.data.interactions import Split
from padrec.data.item_sequences import ItemSequences
from padrec.data.json_file import read_json_lines
from padrec.data.windows import Windows, cut_windows, list_windows

_EXPECTED = '{"user": key, "history": [item key, …], "items": [item key, …]}'


class TrainingRows(Protocol):
    """A source of training rows. With this protocol as its base class, a config can name it by its class alone."""

    def windows(self, split: Split, catalog: Catalog, max_history: int, list_length: int) -> Windows:
        """Read or cut the rows; called once, before a fit.

        Args:
            split: training, validation and test items of each user.
            catalog: the items.
            max_history: most items of history in a prompt.
            list_length: K, items in a list.

        Raises:
            InputError: there are no rows, or a file is missing or wrong.
        """


class LoggedSequences(TrainingRows):
    """The training items of every user, cut into windows that predict each item once; see `cut_windows`."""

    def windows(self, split: Split, catalog: Catalog, max_history: int, list_length: int) -> Windows:
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

    def windows(self, split: Split, catalog: Catalog, max_history: int, list_length: int) -> Windows:
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
