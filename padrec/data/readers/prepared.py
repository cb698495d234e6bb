"""Folders that `padrec prepare` wrote, with semantic IDs from a catalog folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from padrec.catalog import Catalog, InputError
from padrec.catalog.catalog import ITEMS_FILE
from padrec.data.interactions import Split
from padrec.data.item_sequences import ItemSequences
from padrec.data.preparation.prepared_folder import PreparedFolder
from padrec.data.preparation.split_rule import PARTS
from padrec.data.readers.reader import Dataset, Reader
from padrec.data.readers.semantic_id_index import only_file, read_index


@dataclass(frozen=True)
class PreparedReader(Reader):
    """Reads a prepared folder, and the items' semantic IDs from a catalog folder.

    The catalog folder holds one `*index.json`, which maps an item's key to its code strings
    (`["<a_183>", "<b_70>", …]`). Its items without interactions can be recommended too. Titles come from the prepared
    folder, or from what `SemanticIDWriter` wrote for other items. The split is the prepared one.

    Args:
        folder: the prepared folder.
        catalog: the folder with the semantic IDs; None gives every item a code of its own in one slot, until there are
            semantic IDs.
    """

    folder: str
    catalog: str | None

    def read(self) -> Dataset:
        """See `Reader`."""
        folder = PreparedFolder(Path(self.folder))
        counts = folder.read_summary()["counts"]
        items = read_prepared_table(folder.items, ["item", "title"], counts["items"])
        users = read_prepared_table(folder.users, ["user"], counts["users"])
        interactions = read_prepared_table(folder.interactions, ["user", "item", "split"], counts["interactions"])
        keys, titles = items["item"].to_pylist(), items["title"].to_pylist()
        if self.catalog is None:
            catalog = Catalog(torch.arange(len(keys))[:, None], keys, titles, source=str(folder.items))
        else:
            saved = _saved_titles(Path(self.catalog))
            index = only_file(Path(self.catalog), "*index.json")
            catalog = read_index(index, saved | dict(zip(keys, titles, strict=True)))
        try:
            rows = np.array([catalog.index(key) for key in keys], dtype=np.int64)
        except InputError as error:
            raise InputError(f"{folder.items}: {error}, expected a semantic ID for every prepared item") from None
        split = _split(folder, interactions, users["user"].to_pylist(), rows)
        return Dataset(folder.path.resolve().name, catalog, split)


def _split(folder: PreparedFolder, table: pa.Table, user_keys: Sequence[str], catalog_rows: NDArray[np.int64]) -> Split:
    """The parts of the interactions; `catalog_rows` are the items' rows in the catalog, int64 `[n_items]`."""
    path = folder.interactions
    users, items = (table[name].to_numpy() for name in ("user", "item"))
    for name, values, count in (("user", users, len(user_keys)), ("item", items, len(catalog_rows))):
        if values.min() < 0 or values.max() >= count:
            raise InputError(f"{path}: {name} rows {values.min()} … {values.max()}, expected 0 … {count - 1}")
    if (np.diff(users) < 0).any():
        raise InputError(f"{path}: users are not in ascending order, expected it as written")
    part_of = table["split"].cast(pa.string())
    parts: list[ItemSequences] = []
    for name in PARTS:
        inside = pc.equal(part_of, name).to_numpy()
        lengths = torch.from_numpy(np.bincount(users[inside], minlength=len(user_keys)))
        parts.append(ItemSequences.from_lengths(torch.from_numpy(catalog_rows[items[inside]]), lengths))
    if others := len(table) - sum(len(part.items) for part in parts):
        raise InputError(f"{path}: {others} rows with another split, expected one of {', '.join(PARTS)}")
    train, validation, test = parts
    return Split(tuple(user_keys), train, validation, test, source=str(folder.path))


def _saved_titles(folder: Path) -> dict[str, str]:
    """Titles by item key, if `Catalog.save` wrote the folder."""
    if not (folder / ITEMS_FILE).is_file():
        return {}
    saved = Catalog.load(folder)
    return {} if saved.texts is None else dict(zip(saved.keys, saved.texts, strict=True))


def read_prepared_table(path: Path, columns: list[str], n_rows: int) -> pa.Table:
    """Read columns of a prepared Parquet file, which must be whole and have that many rows."""
    try:
        table = pq.read_table(path, columns=columns)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({reason}), expected it as it was prepared") from None
    if table.column_names != columns or len(table) != n_rows:
        found = f"{len(table)} rows of {', '.join(table.column_names)}"
        raise InputError(f"{path}: {found}, expected {n_rows} of {', '.join(columns)} (prepared.json)")
    return table
