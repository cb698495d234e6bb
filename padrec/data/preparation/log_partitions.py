"""A log cut by users into parts that fit in memory."""

import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from padrec.catalog import InputError
from padrec.data.logs import LogSource
from padrec.data.preparation.arrow_file import arrow_writer, read_arrow, write_arrow
from padrec.data.preparation.progress import Progress
from padrec.data.preparation.stages import read_json, write_json

# One part is in memory at a time; with many more, the pieces that are written at once would be too small.
N_PARTITIONS = 64
_ROWS = 1 << 19  # interactions that are cut at once
_SCHEMA = pa.schema([("user", pa.string()), ("item", pa.int32()), ("time", pa.int64())])
_ITEMS = "items.arrow"
_COUNTS = "counts.json"


def partition_log(source: LogSource, min_rating: float | None, folder: Path) -> None:
    """Read a log once and write each user's interactions into one of the parts, in the order of the log.

    A user's part follows from the key alone, so no table of all users is needed; that of all items is kept in memory.

    Args:
        source: the log.
        min_rating: leave out interactions with a lower rating; None takes all.
        folder: gets a file for each part, the items' keys in the order of their first appearance, and counts.

    Raises:
        InputError: the log is wrong, an interaction has no rating although `min_rating` is given, or none is left.
    """
    progress = Progress("read")
    items: dict[str, int] = {}
    read = rated = 0
    with ExitStack() as stack:
        paths = [folder / partition_name(number) for number in range(N_PARTITIONS)]
        writers = [stack.enter_context(arrow_writer(path, _SCHEMA)) for path in paths]
        for table, done in _large_pieces(source):
            good = _well_rated(table, min_rating, read, source)
            read, rated = read + len(table), rated + len(good)
            _write(good, items, writers)
            progress.update(f"{read:,} interactions, {100 * done:.0f} % of the files")
    if rated == 0:
        raise InputError(f"{_names(source)}: {read} interactions, none with a rating of {min_rating}, expected some")
    write_arrow(folder / _ITEMS, pa.table({"item": pa.array(items, pa.string())}))
    write_json(folder / _COUNTS, {"read": read, "rated": rated})
    progress.end(f"{read:,} interactions, {rated:,} rated well enough, {len(items):,} items")


def read_partition(folder: Path, number: int) -> pa.Table:
    """The `user`, `item` and `time` of a part's interactions; users are keys, items rows of the items' keys."""
    return read_arrow(folder / partition_name(number))


def read_items(folder: Path) -> pa.ChunkedArray:
    """The items' keys."""
    return read_arrow(folder / _ITEMS)["item"]


def read_counts(folder: Path) -> dict[str, int]:
    """Interactions `read`, and those `rated` well enough."""
    return read_json(folder / _COUNTS)


def partition_name(number: int) -> str:
    """Name of a part's file."""
    return f"{number:03d}.arrow"


def _large_pieces(source: LogSource) -> Iterator[tuple[pa.Table, float]]:
    """Chunks joined to at least `_ROWS` interactions, with the share of the log read: each is cut into many parts."""
    waiting: list[pa.Table] = []
    done = 0.0
    for chunk in source.interactions():
        waiting.append(chunk.interactions)
        done = chunk.done
        if sum(map(len, waiting)) >= _ROWS:
            yield pa.concat_tables(waiting).combine_chunks(), done
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks(), done


def _well_rated(table: pa.Table, min_rating: float | None, first: int, source: LogSource) -> pa.Table:
    if min_rating is None:
        return table
    rating = table["rating"]
    if rating.null_count:
        number = first + pc.index(pc.is_null(rating), True).as_py() + 1
        raise InputError(f"{_names(source)}: interaction {number} has no rating, expected one as min_rating is given")
    return table.filter(pc.greater_equal(rating, min_rating))


def _write(table: pa.Table, items: dict[str, int], writers: list[pa.RecordBatchFileWriter]) -> None:
    users, item_keys = (_encoded(table[name]) for name in ("user", "item"))
    part_of_user = np.array([zlib.crc32(key.encode()) % N_PARTITIONS for key in users.dictionary.to_pylist()], np.uint8)
    item_rows = np.array([items.setdefault(key, len(items)) for key in item_keys.dictionary.to_pylist()], np.int32)
    if len(table) == 0:
        return
    part = part_of_user[_codes(users)]
    cut = pa.table({"user": table["user"], "item": item_rows[_codes(item_keys)], "time": table["time"]}, _SCHEMA)
    cut = cut.take(np.argsort(part, kind="stable"))
    ends = np.bincount(part, minlength=N_PARTITIONS).cumsum()
    for writer, start, end in zip(writers, [0, *ends[:-1]], ends, strict=True):
        if end > start:
            writer.write_table(cut.slice(start, end - start))


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """Distinct values in the order of their first appearance, and their numbers."""
    return column.combine_chunks().dictionary_encode()


def _codes(encoded: pa.DictionaryArray) -> NDArray[np.int32]:
    codes: NDArray[np.int32] = encoded.indices.to_numpy()
    return codes


def _names(source: LogSource) -> str:
    return ", ".join(str(path) for path in source.files())
