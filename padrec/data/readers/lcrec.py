"""The folder format of LC-Rec, which LETTER and others share."""

from dataclasses import dataclass
from pathlib import Path

from padrec.catalog import Catalog, InputError
from padrec.data.interactions import Interactions
from padrec.data.item_sequences import ItemSequences
from padrec.data.json_file import read_json_object
from padrec.data.readers.reader import Dataset, Reader, check_files
from padrec.data.readers.semantic_id_index import read_index_and_titles


@dataclass(frozen=True)
class LCRecReader(Reader):
    """Reads `<name>.index.json`, `<name>.inter.json` and, if it exists, `<name>.item.json`.

    The index maps an item to its code strings (`["<a_183>", "<b_70>", …]`), the interactions map a user to a list of
    items in time order, the items map an item to an object with a `title`. The format has no split.

    Args:
        folder: the folder with the files.
        name: name of the data set; None takes it from the only `*.index.json` in the folder.
    """

    folder: str
    name: str | None = None

    def read(self) -> Dataset:
        """See `Reader`."""
        folder, stem = Path(self.folder), self.name or "*"
        check_files(folder, f"{stem}.index.json", f"{stem}.inter.json")
        name, catalog = read_index_and_titles(folder, self.name)
        return Dataset(name, catalog, _read_interactions(folder / f"{name}.inter.json", catalog))


def _read_interactions(path: Path, catalog: Catalog) -> Interactions:
    rows = []
    content = read_json_object(path, "user -> items in time order")
    for user, items in content.items():
        if not isinstance(items, list):
            raise InputError(f"{path}: user {user!r} has {items!r}, expected a list of items in time order")
        try:
            rows.append([catalog.index(str(item)) for item in items])
        except InputError as error:
            raise InputError(f"{path}: user {user!r}: {error}") from None
    return Interactions(tuple(content), ItemSequences.from_lists(rows), source=str(path))
