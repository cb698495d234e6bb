"""The folder format of AtSpeed, split by time."""

from dataclasses import dataclass
from pathlib import Path

from padrec.catalog import Catalog, InputError
from padrec.data.interactions import Split
from padrec.data.item_sequences import ItemSequences
from padrec.data.readers.reader import Dataset, Reader, check_files
from padrec.data.readers.semantic_id_index import only_file, read_index
from padrec.data.text_file import read_text

_PARTS = ("train", "valid", "test")
_ROW = "user item item …"


@dataclass(frozen=True)
class AtSpeedReader(Reader):
    """Reads an index `*.json` and `sequential_train.txt`, `sequential_valid.txt`, `sequential_test.txt`.

    The index numbers items from 0, the rows `user item item …` number users and items from 1: row item `i` is index
    item `i - 1`. Item keys are the index's strings, user keys those of the rows. The three files have the same users; a
    user may have no items in a file.

    Args:
        folder: the folder with the four files.
    """

    folder: str

    def read(self) -> Dataset:
        """See `Reader`."""
        folder = Path(self.folder)
        paths = [folder / f"sequential_{part}.txt" for part in _PARTS]
        check_files(folder, "*.json", *(path.name for path in paths))
        catalog = read_index(only_file(folder, "*.json"))
        parts = [_read_rows(path, catalog) for path in paths]
        users = tuple(parts[0])
        for path, part in zip(paths, parts, strict=True):
            if missing := next((user for user in (*users, *part) if user not in part or user not in parts[0]), None):
                has, lacks = (paths[0], path) if missing in parts[0] else (path, paths[0])
                raise InputError(f"{lacks}: no row for user {missing!r} of {has.name}, expected the same users in both")
        train, validation, test = (ItemSequences.from_lists([part[user] for user in users]) for part in parts)
        return Dataset(folder.resolve().name, catalog, Split(users, train, validation, test, source=str(folder)))


def _read_rows(path: Path, catalog: Catalog) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        user, *items = line.split() or [""]
        if not user:
            raise InputError(f"{path}, line {number}: empty, expected `{_ROW}`")
        if user in rows:
            raise InputError(f"{path}, line {number}: user {user!r} has a row already, expected one row for each user")
        rows[user] = [_item(f"{path}, line {number}: user {user!r}", item, catalog) for item in items]
    return rows


def _item(place: str, item: str, catalog: Catalog) -> int:
    if not item.isdecimal():
        raise InputError(f"{place} has {item!r}, expected an item number (a row is `{_ROW}`)")
    try:
        return catalog.index(str(int(item) - 1))
    except InputError as error:
        raise InputError(f"{place} has item {item}, 0-based: {error}") from None
