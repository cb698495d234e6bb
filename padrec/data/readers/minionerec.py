"""The folder format of MiniOneRec, split by time."""

import csv
import io
import itertools
import warnings
from dataclasses import dataclass
from pathlib import Path

from padrec.catalog import Catalog, InputError
from padrec.data.interactions import Split
from padrec.data.item_sequences import ItemSequences
from padrec.data.readers.reader import Dataset, Reader, check_files
from padrec.data.readers.semantic_id_index import code_strings, read_index_and_titles
from padrec.data.text_file import python_literal, read_text

_PARTS = ("train", "valid", "test")
_COLUMNS = ("user_id", "history_item_id", "item_id", "item_sid")
_LONGEST_HISTORY = 10
_Parts = dict[str, list[int]]  # a user's items by part, in time order


@dataclass(frozen=True)
class MiniOneRecReader(Reader):
    """Reads `<name>.index.json`, `valid.csv`, `test.csv` and, if they exist, `<name>.item.json` and `train.csv`.

    A row of a CSV file holds a history of at most ten items and the next item. The rows of a user, from `train.csv`
    through `test.csv`, continue each other and are joined: the validation items are the next items of the rows in
    `valid.csv`, and so on; the history of the first row is training data. So the ground truth may be several items,
    which MiniOneRec itself predicts one by one.

    Without `train.csv`, the training items are only those of each first history: enough to evaluate, but few to train a
    target on. A warning says so.

    Args:
        folder: the folder with the files.
    """

    folder: str

    def read(self) -> Dataset:
        """See `Reader`."""
        folder = Path(self.folder)
        check_files(folder, "*.index.json", *(f"{part}.csv" for part in _PARTS[1:]))
        name, catalog = read_index_and_titles(folder)
        users: dict[str, _Parts] = {}
        for part in self._parts(folder):
            _read_rows(folder / f"{part}.csv", part, catalog, users)
        train, validation, test = (
            ItemSequences.from_lists([parts[part] for parts in users.values()]) for part in _PARTS
        )
        return Dataset(name, catalog, Split(tuple(users), train, validation, test, source=str(folder)))

    def _parts(self, folder: Path) -> tuple[str, ...]:
        if (folder / "train.csv").exists():
            return _PARTS
        warnings.warn(
            f"{folder}: no train.csv, only the splits valid and test; training sequences are the at most "
            f"{_LONGEST_HISTORY} items in the first history of each user",
            stacklevel=3,
        )
        return _PARTS[1:]


def _read_rows(path: Path, part: str, catalog: Catalog, users: dict[str, _Parts]) -> None:
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
    if missing := [column for column in _COLUMNS if column not in (rows.fieldnames or ())]:
        raise InputError(f"{path}: no column {missing[0]!r}, expected the columns {', '.join(_COLUMNS)}")
    for number in itertools.count(1):
        try:
            if (row := next(rows, None)) is None:
                break
            history, item = _row_items(row, catalog)
            parts = users.setdefault(row["user_id"], {name: [] for name in _PARTS})
            recent = [before for name in _PARTS for before in parts[name]][-_LONGEST_HISTORY:]
            if not recent:
                parts["train"] += history
            elif recent != history:
                known = [catalog.keys[before] for before in recent]
                found = f"user {row['user_id']!r} has the history {row['history_item_id']}"
                raise InputError(f"{found}, expected the last items of the rows before: {', '.join(known)}")
        except (InputError, csv.Error) as error:
            raise InputError(f"{path}, row {number}: {error}") from None
        parts[part].append(item)


def _row_items(row: dict[str, str], catalog: Catalog) -> tuple[list[int], int]:
    """History and next item of a row, as rows of the catalog."""
    text = row["history_item_id"]
    try:
        history = python_literal(text)
    except ValueError:
        history = None
    if not isinstance(history, list) or not 1 <= len(history) <= _LONGEST_HISTORY:
        raise InputError(f"history_item_id is {text!r}, expected a list of 1 to {_LONGEST_HISTORY} items")
    item = catalog.index(row["item_id"])
    sid = "".join(code_strings(catalog.codes[item].tolist()))
    if row["item_sid"] != sid:
        raise InputError(f"item {row['item_id']!r} has the ID {row['item_sid']!r}, expected {sid!r} as in the index")
    return [catalog.index(str(before)) for before in history], item
