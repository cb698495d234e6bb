"""What `padrec prepare` leaves, with semantic IDs from a catalog folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from padrec.catalog import Catalog, InputError
from padrec.catalog.catalog_folder import ITEMS_FILE
from padrec.data.item_sequences import ItemSequences
from padrec.data.preparation.prepared_folder import PreparedFolder
from padrec.data.preparation.split_rule import PARTS
from padrec.data.readers.only_file import only_file
from padrec.data.readers.reader import Dataset, Reader
from padrec.data.readers.semantic_id_index import read_index
from padrec.data.splits import Split


class PreparedReader(Reader):
    """Reads a prepared folder, and the items' semantic IDs from a catalog folder.

    The catalog folder holds one `*index.json`, which maps an item's key to its code strings
    (`["<a_183>", "<b_70>", …]`). It may have items that nobody interacted with; they can be recommended too. Titles
    are those of the prepared folder, of other items those that `SemanticIDWriter` wrote. The split is the one that was
    prepared.

    Args:
        folder: the prepared folder.
        catalog: the folder with the semantic IDs; None, as long as there are none, gives every item a code of its own
            in one slot.
    """

    def __init__(self, folder: str, catalog: str | None) -> None:
        self.folder = PreparedFolder(Path(folder))
        self.catalog = None if catalog is None else Path(catalog)

    def read(self) -> Dataset:
        """Read and check the files.

        Raises:
            InputError: a file is missing or wrong, the prepared files do not belong together, or an item that occurs
                in an interaction has no semantic ID.
        """
        counts = self.folder.read_summary()["counts"]
        items = _read_parquet(self.folder.items, ["item", "title"], counts["items"])
        users = _read_parquet(self.folder.users, ["user"], counts["users"])
        interactions = _read_parquet(self.folder.interactions, ["user", "item", "split"], counts["interactions"])
        keys = items["item"].to_pylist()
        catalog = self._read_catalog(keys, items["title"].to_pylist())
        rows = self._catalog_rows(keys, catalog)
        split = self._split(interactions, users["user"].to_pylist(), rows)
        return Dataset(self.folder.path.resolve().name, catalog, split)

    def _read_catalog(self, keys: Sequence[str], titles: Sequence[str]) -> Catalog:
        if self.catalog is None:
            return Catalog(torch.arange(len(keys))[:, None], keys, titles, source=str(self.folder.items))
        index = only_file(self.catalog, "*index.json")
        return read_index(index, _saved_titles(self.catalog) | dict(zip(keys, titles, strict=True)))

    def _catalog_rows(self, keys: Sequence[str], catalog: Catalog) -> NDArray[np.int64]:
        """The catalog row of each prepared item, int64 `[n_items]`."""
        try:
            return np.array([catalog.index(key) for key in keys], dtype=np.int64)
        except InputError as error:
            raise InputError(f"{self.folder.items}: {error}, expected a semantic ID for every prepared item") from None

    def _split(self, table: pa.Table, user_keys: Sequence[str], catalog_rows: NDArray[np.int64]) -> Split:
        users, items = (table[name].to_numpy() for name in ("user", "item"))
        for name, values, count in (("user", users, len(user_keys)), ("item", items, len(catalog_rows))):
            if values.min() < 0 or values.max() >= count:
                raise InputError(
                    f"{self.folder.interactions}: {name} rows {values.min()} … {values.max()}, expected 0 … {count - 1}"
                )
        if (np.diff(users) < 0).any():
            raise InputError(f"{self.folder.interactions}: users are not in ascending order, expected it as written")
        dealt = table["split"].cast(pa.string())
        parts: list[ItemSequences] = []
        for name in PARTS:
            inside = pc.equal(dealt, name).to_numpy()
            lengths = torch.from_numpy(np.bincount(users[inside], minlength=len(user_keys)))
            offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
            parts.append(ItemSequences(torch.from_numpy(catalog_rows[items[inside]]), offsets))
        if (dealt_rows := sum(len(part.items) for part in parts)) != len(table):
            raise InputError(
                f"{self.folder.interactions}: {len(table) - dealt_rows} rows with another split, "
                f"expected one of {', '.join(PARTS)}"
            )
        train, validation, test = parts
        return Split(tuple(user_keys), train, validation, test, source=str(self.folder.path))


def _saved_titles(folder: Path) -> dict[str, str]:
    """Titles by item key in a folder that `Catalog.save` wrote; no other folder has any."""
    if not (folder / ITEMS_FILE).is_file():
        return {}
    saved = Catalog.load(folder)
    return {} if saved.texts is None else dict(zip(saved.keys, saved.texts, strict=True))


def _read_parquet(path: Path, columns: list[str], n_rows: int) -> pa.Table:
    try:
        table = pq.read_table(path, columns=columns)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({reason}), expected it as it was prepared") from None
    if table.column_names != columns or len(table) != n_rows:
        raise InputError(
            f"{path}: {len(table)} rows of {', '.join(table.column_names)}, expected {n_rows} of {', '.join(columns)} "
            "(prepared.json)"
        )
    return table
