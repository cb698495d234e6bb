"""The folder format of LC-Rec, which LETTER and others share."""

from pathlib import Path

from padrec.catalog import Catalog, InputError
from padrec.data.interactions import Interactions
from padrec.data.item_sequences import ItemSequences
from padrec.data.json_file import read_json_object
from padrec.data.readers.item_titles import read_titles
from padrec.data.readers.only_file import only_file
from padrec.data.readers.reader import Dataset, Reader
from padrec.data.readers.semantic_id_index import read_index


class LCRecReader(Reader):
    """Reads `<name>.index.json`, `<name>.inter.json` and, where there is one, `<name>.item.json`.

    The index maps an item to its code strings (`["<a_183>", "<b_70>", …]`), the interactions map a user to the list
    of the user's items in time order, the items map an item to an object with a `title`. The format has no split.

    Args:
        folder: the folder with the files.
        name: the data set's name; None takes it from the only `*.index.json` in the folder.
    """

    def __init__(self, folder: str, name: str | None = None) -> None:
        self.folder = Path(folder)
        self.name = name

    def read(self) -> Dataset:
        """Read and check the files.

        Raises:
            InputError: a file is missing or malformed, an item has no ID, IDs are ragged, a user is empty, or an
                interaction's item is not in the index.
        """
        name = self.name
        if name is None:
            name = only_file(self.folder, "*.index.json").name.removesuffix(".index.json")
        items = self.folder / f"{name}.item.json"
        catalog = read_index(self.folder / f"{name}.index.json", read_titles(items) if items.exists() else None)
        interactions = _read_interactions(self.folder / f"{name}.inter.json", catalog)
        return Dataset(name, catalog, interactions)


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
