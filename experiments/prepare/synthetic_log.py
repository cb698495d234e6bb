"""A made-up log to measure `padrec prepare` with: python synthetic_log.py ROWS ITEMS FILE.parquet."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

_ROWS_AT_ONCE = 1_000_000
_SCHEMA = pa.schema([("user", pa.string()), ("item", pa.string()), ("time", pa.int64()), ("rating", pa.float64())])


def log(n_rows: int, n_items: int) -> Iterator[pa.Table]:
    """Few users and items have many interactions, most have few; pieces of the whole."""
    rng = np.random.default_rng(0)
    n_users = n_rows // 8
    for start in range(0, n_rows, _ROWS_AT_ONCE):
        size = min(_ROWS_AT_ONCE, n_rows - start)
        users = (rng.pareto(1.2, size) * n_users / 20).astype(np.int64) % n_users
        items = (n_items * rng.random(size) ** 3).astype(np.int64)
        columns = {
            "user": np.char.add("U", users.astype(str)),
            "item": np.char.add("I", items.astype(str)),
            "time": rng.integers(1_000_000_000, 1_700_000_000, size),
            "rating": rng.integers(1, 6, size).astype(float),
        }
        yield pa.table(columns, _SCHEMA)


def main(n_rows: int, n_items: int, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, _SCHEMA) as writer:
        for piece in log(n_rows, n_items):
            writer.write_table(piece)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
