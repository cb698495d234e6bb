"""The tables of a prepared folder.

Loaded only while a log is prepared: importing Ibis takes a second.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from padrec.data.logs import ItemText, LogSource
from padrec.data.preparation import prepared_folder as format_of
from padrec.data.preparation.prepared_folder import PreparedFolder
from padrec.data.preparation.queries import ITEMS, LOG, USERS, of_active_users
from padrec.data.preparation.split_rule import PARTS, SplitRule
from padrec.data.preparation.stages import Stage

_KEYS = "keys.parquet"


def write_interactions(stage: Stage, order: Path, core: Path, user_core: int, split: SplitRule) -> Mapping[str, int]:
    """Write the tables of interactions and users, and the keys of the items.

    Raises:
        InputError: the split leaves a part empty.
    """
    connection, files = stage.connection, PreparedFolder(stage.folder)
    items = _ranked(connection.load(core / ITEMS), "item")
    log = of_active_users(connection.load(order / LOG).semi_join(items, "item"), user_core)
    log = connection.store(log, stage.folder / "core.parquet")
    users = connection.store(_ranked(log.select("user").distinct(), "user"), stage.folder / "core-users.parquet")
    dealt = log.mutate(part=split.part(log))
    joined = dealt.join(users, dealt.user == users.user).join(items, dealt.item == items.item)
    columns = {"user": users.number, "item": items.number, "time": dealt.time, "part": dealt.part}
    ordered = joined.select(**columns, position=dealt.position).order_by("user", "time", "position").drop("position")
    sizes = np.zeros(len(PARTS), dtype=np.int64)
    with pq.ParquetWriter(files.interactions, format_of.INTERACTIONS, compression="zstd") as writer:
        for table in _stored(stage, ordered, "sorted.parquet"):
            writer.write_table(_interactions(table))
            sizes += np.bincount(table["part"].to_numpy(), minlength=len(PARTS))
            stage.progress.state = f"{int(sizes.sum()):,} interactions"
    n_users = 0
    with pq.ParquetWriter(files.users, format_of.USERS, compression="zstd") as writer:
        for table in _stored(stage, _keys(connection.load(order / USERS), users, "user"), "user-keys.parquet"):
            writer.write_table(table.rename_columns(["user"]).cast(format_of.USERS))
            n_users += len(table)
    connection.store(_keys(connection.load(order / ITEMS), items, "item"), stage.folder / _KEYS)
    counts = {"users": n_users, **dict(zip(PARTS, sizes.tolist(), strict=True))}
    stage.progress.state = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    return counts


def write_items(stage: Stage, split: Path, source: LogSource) -> Mapping[str, int]:
    """Write the table of the items with the first text that the log has for each; the connection is one of DuckDB.

    Raises:
        InputError: the texts are wrong.
    """
    texts = [ItemText(key) for key in ds.dataset(split / _KEYS).to_table()["key"].to_pylist()]
    missing = {item.item: row for row, item in enumerate(texts)}
    for number, item in enumerate(source.item_texts(stage.connection.backend), start=1):
        if (row := missing.pop(item.item, None)) is not None:
            texts[row] = item
        stage.progress.state = f"{number:,} texts read, {len(missing):,} of {len(texts):,} items without one"
    columns = {name: [getattr(item, name) for item in texts] for name in format_of.ITEMS.names}
    pq.write_table(pa.table(columns, format_of.ITEMS), PreparedFolder(stage.folder).items, compression="zstd")
    stage.progress.state = f"{len(texts):,} items, {len(missing):,} of them without a text"
    return {"items_without_text": len(missing)}


def _ranked(table: ibis.Table, name: str) -> ibis.Table:
    """Number rows from 0 in the order of a column."""
    return table.mutate(number=ibis.row_number().over(order_by=table[name]))


def _keys(named: ibis.Table, kept: ibis.Table, name: str) -> ibis.Table:
    """The log's own keys of the users or items that are kept, in the order of their numbers."""
    return named.join(kept, named.number == kept[name]).select(named.key, kept.number).order_by("number").select("key")


def _stored(stage: Stage, table: ibis.Table, name: str) -> Iterator[pa.Table]:
    """The rows of a query piece by piece: stored first, as not all engines stream a result in order."""
    stage.connection.store(table, stage.folder / name)
    for batch in ds.dataset(stage.folder / name).to_batches():
        yield pa.Table.from_batches([batch])


def _interactions(table: pa.Table) -> pa.Table:
    part = table["part"].combine_chunks().cast(pa.int8())
    split = pa.DictionaryArray.from_arrays(part, pa.array(PARTS))
    time = table["time"].cast(pa.timestamp("us", "UTC"))
    columns = {"user": table["user"], "item": table["item"], "time": time, "split": split}
    return pa.table(columns).cast(format_of.INTERACTIONS)
