"""The stages of a preparation, as queries.

Loaded only while a log is prepared: importing Ibis takes a second.
"""

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

import duckdb
import ibis
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from padrec.catalog import InputError
from padrec.data.logs.source import ItemText, LogSource, LogTable
from padrec.data.preparation import prepared_folder as format_of
from padrec.data.preparation.engine import rows
from padrec.data.preparation.prepared_folder import PreparedFolder
from padrec.data.preparation.split_rule import PARTS, SplitRule
from padrec.data.preparation.stages import Stage

LOG = "log.parquet"
_ITEMS, _USERS, _KEYS = "items.parquet", "users.parquet", "keys.parquet"
_ROW_BITS = 40  # rows of a file are numbered below 2^40


def read_log(stage: Stage, source: LogSource, min_rating: float | None) -> Mapping[str, int]:
    """Read every file once and check each row; the connection is one of DuckDB.

    Writes a table for each file: the columns of `LogTable`, and `position`, which ascends in the order of the log.
    """
    folder = stage.folder / LOG
    folder.mkdir()
    for number, log in enumerate(source.interactions(stage.connection.backend)):
        stage.progress.state = f"file {number + 1} of {len(source.files())}"
        table = log.rows.mutate(position=ibis.row_number() + (number << _ROW_BITS))
        if min_rating is not None:
            no_rating = table.rating.isnull().ifelse("no rating, expected one as min_rating is given", ibis.null(str))
            table = table.mutate(wrong=table.wrong.fill_null(no_rating))
        try:
            stored = stage.connection.store(table, folder / f"{number:06d}.parquet")
        except (duckdb.DataError, duckdb.ProgrammingError, duckdb.IOException) as error:
            raise log.error(f": {error}") from None
        _check(log, stored, number << _ROW_BITS)
    whole = stage.connection.load(folder)
    read, rated = _row_count(whole), _row_count(_well_rated(whole, min_rating))
    if rated == 0:
        paths = ", ".join(str(path) for path in source.files())
        raise InputError(f"{paths}: {read} interactions, none with a rating of {min_rating}, expected some")
    stage.progress.state = f"{read:,} interactions, {rated:,} rated well enough"
    return {"read": read, "rated": rated}


def order_log(stage: Stage, read: Path, min_rating: float | None, deduplicate: bool) -> Mapping[str, int]:
    """Number users and items, and drop low ratings and repetitions.

    A user's number is the position of their first interaction in the log, and so is an item's: numbers ascend in the
    order of first appearance, and are found without sorting all users. Writes the tables `_USERS` and `_ITEMS` (`key`,
    `number`) and `LOG` (`user`, `item`, `time`, `position`).
    """
    log = _well_rated(stage.connection.load(read / LOG), min_rating)
    users, items = (
        stage.connection.store(log.group_by(key=log[name]).agg(number=log.position.min()), stage.folder / file)
        for name, file in (("user", _USERS), ("item", _ITEMS))
    )
    joined = log.join(users, log.user == users.key).join(items, log.item == items.key)
    numbered = joined.select(user=users.number, item=items.number, time=log.time, position=log.position)
    if deduplicate:
        place = ibis.row_number().over(group_by=["user", "item"], order_by=["time", "position"])
        numbered = numbered.mutate(place=place).filter(ibis._.place == 0).drop("place")
    distinct = _row_count(stage.connection.store(numbered, stage.folder / LOG))
    stage.progress.state = f"{distinct:,} interactions"
    return {"distinct": distinct}


def find_core(stage: Stage, order: Path, user_core: int, item_core: int) -> Mapping[str, int]:
    """Find the k-core: drop users and items with too few interactions until none has too few.

    Each round counts the interactions with the remaining items; only these items are handed on to the next round.
    Writes the table `_ITEMS` (`item`), the items of the core.
    """
    connection = stage.connection
    log = kept = connection.load(order / LOG)
    n_items = before = _row_count(connection.load(order / _ITEMS))
    for core_round in count(1):
        left = _of_active_users(kept, user_core)
        counts = connection.store(left.group_by("item").agg(n=left.count()), stage.folder / f"{core_round}.parquet")
        enough = counts.filter(counts.n >= item_core).select("item")
        interactions, found = counts.n.sum().to_pyarrow().as_py() or 0, _row_count(enough)
        stage.progress.state = f"round {core_round}, {interactions:,} interactions left"
        if found == before:  # `enough` is a part of the items before
            break
        kept, before = log.semi_join(enough, "item"), found
    if interactions == 0:
        none = f"none of {_row_count(log)} interactions is left with user_core {user_core} and item_core {item_core}"
        raise InputError(f"{none}, expected some: lower them")
    connection.store(enough, stage.folder / _ITEMS)
    stage.progress.state = (
        f"{interactions:,} interactions after {core_round} rounds; {found:,} of {n_items:,} items kept, "
        f"{n_items - found:,} dropped"
    )
    return {"core_rounds": core_round, "interactions": interactions, "items": found, "items_dropped": n_items - found}


def write_interactions(stage: Stage, order: Path, core: Path, user_core: int, split: SplitRule) -> Mapping[str, int]:
    """Write the tables of interactions and users, and the keys of the items."""
    connection, files = stage.connection, PreparedFolder(stage.folder)
    items = _ranked(connection.load(core / _ITEMS), "item")
    log = _of_active_users(connection.load(order / LOG).semi_join(items, "item"), user_core)
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
        for table in _stored(stage, _keys(connection.load(order / _USERS), users, "user"), "user-keys.parquet"):
            writer.write_table(table.rename_columns(["user"]).cast(format_of.USERS))
            n_users += len(table)
    connection.store(_keys(connection.load(order / _ITEMS), items, "item"), stage.folder / _KEYS)
    counts = {"users": n_users, **dict(zip(PARTS, sizes.tolist(), strict=True))}
    stage.progress.state = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    return counts


def write_items(stage: Stage, split: Path, source: LogSource) -> Mapping[str, int]:
    """Write the table of the items with the first text that the log has for each; the connection is one of DuckDB."""
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


def _check(log: LogTable, stored: ibis.Table, first: int) -> None:
    bad = stored.filter(stored.wrong.notnull()).order_by("position").limit(1)
    for row in rows(bad.select("position", "wrong")):
        raise log.error(f", row {row['position'] - first + 1}: {row['wrong']}")
    if _row_count(stored) == 0:
        raise log.error(": a table without rows, expected at least one")


def _well_rated(log: ibis.Table, min_rating: float | None) -> ibis.Table:
    return log if min_rating is None else log.filter(log.rating >= min_rating)


def _of_active_users(log: ibis.Table, user_core: int) -> ibis.Table:
    active = log.group_by("user").having(log.count() >= user_core).agg()
    return log.semi_join(active, "user")


def _row_count(table: ibis.Table) -> int:
    return int(table.count().to_pyarrow().as_py())


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
