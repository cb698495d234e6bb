"""The kept items and their texts."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from padrec.data.logs import ItemText, LogSource
from padrec.data.preparation.prepared_folder import ITEMS
from padrec.data.preparation.progress import Progress


def write_items(source: LogSource, keys: pa.ChunkedArray, path: Path) -> int:
    """Write a table of the items with the texts that the log has for them.

    Args:
        source: the log; of several texts of an item the first counts, others' texts are read but not kept.
        keys: the items' keys.
        path: the file.

    Returns:
        The number of items without a text.

    Raises:
        InputError: the texts are wrong.
    """
    progress = Progress("items")
    rows = [ItemText(key) for key in keys.to_pylist()]
    missing = {item.item: row for row, item in enumerate(rows)}
    for number, item in enumerate(source.item_texts(), start=1):
        if (row := missing.pop(item.item, None)) is not None:
            rows[row] = item
        progress.update(f"{number:,} texts read, {len(missing):,} of {len(rows):,} items without one")
    table = pa.table({name: [getattr(item, name) for item in rows] for name in ITEMS.names}, ITEMS)
    pq.write_table(table, path, compression="zstd")
    progress.end(f"{len(rows):,} items, {len(missing):,} of them without a text")
    return len(missing)
