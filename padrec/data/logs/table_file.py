"""Named columns of a table on disk, in pieces."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from padrec.catalog import InputError
from padrec.data.logs.text_lines import is_gzipped, open_binary, read_lines

_PARQUET_MAGIC = b"PAR1"
_BLOCK_BYTES = 1 << 24
_ROWS = 1 << 18


@dataclass(frozen=True)
class TablePiece:
    """Some consecutive rows.

    Attributes:
        path: the file.
        table: the columns asked for; of a CSV file all are strings, a missing field an empty one.
        first_row: number of the first row, counted from 1 without a header.
        done: share of the file read so far, 0 … 1.
    """

    path: Path
    table: pa.Table
    first_row: int
    done: float


def read_table(
    path: Path, columns: Sequence[str], delimiter: str = ",", header: Sequence[str] | None = None
) -> Iterator[TablePiece]:
    """The rows of a Parquet or CSV file, told apart by their content.

    Args:
        path: the file; CSV may be compressed by gzip.
        columns: names of the columns to read.
        delimiter: character between the fields of a CSV file.
        header: names of all columns of a CSV file without a header line; None reads the line.

    Raises:
        InputError: the file is missing or broken, or lacks a column.
    """
    with open_binary(path) as file:
        is_parquet = file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC
    pieces = _read_parquet(path, columns) if is_parquet else _read_csv(path, columns, delimiter, header)
    first_row = 1
    try:
        for table, done in pieces:
            yield TablePiece(path, table, first_row, done)
            first_row += len(table)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: broken behind row {first_row - 1} ({reason}), expected a whole table") from None
    if first_row == 1:
        raise InputError(f"{path}: a table without rows, expected at least one")


def _read_parquet(path: Path, columns: Sequence[str]) -> Iterator[tuple[pa.Table, float]]:
    # Ranges read ahead would stay in memory until the whole file has been read.
    with pq.ParquetFile(path, pre_buffer=False) as file:
        _check_columns(path, columns, file.schema_arrow.names)
        total, done = file.metadata.num_rows, 0
        for batch in file.iter_batches(_ROWS, columns=list(dict.fromkeys(columns))):
            done += len(batch)
            yield pa.Table.from_batches([batch]), done / total


def _read_csv(
    path: Path, columns: Sequence[str], delimiter: str, header: Sequence[str] | None
) -> Iterator[tuple[pa.Table, float]]:
    _check_columns(path, columns, _header_line(path, delimiter) if header is None else header)
    options = pa.csv.ConvertOptions(
        include_columns=list(dict.fromkeys(columns)),
        column_types={name: pa.string() for name in columns},
        strings_can_be_null=False,
    )
    blocks = pa.csv.ReadOptions(block_size=_BLOCK_BYTES, column_names=None if header is None else list(header))
    parsing = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    size = path.stat().st_size
    with open_binary(path) as raw:
        stream = pa.input_stream(raw, compression="gzip" if is_gzipped(path) else None)
        for batch in pa.csv.open_csv(stream, blocks, parsing, options):
            yield pa.Table.from_batches([batch]), raw.tell() / size


def _header_line(path: Path, delimiter: str) -> list[str]:
    for _, line in read_lines(path):
        return next(csv.reader([line.removeprefix("\ufeff")], delimiter=delimiter))
    raise InputError(f"{path}: empty, expected a header line with the names of the columns")


def _check_columns(path: Path, wanted: Sequence[str], found: Sequence[str]) -> None:
    for name in wanted:
        if (count := list(found).count(name)) != 1:
            problem = f"no column {name!r}" if count == 0 else f"{count} columns {name!r}"
            raise InputError(f"{path}: {problem} among {', '.join(found)}; expected each named column once")
