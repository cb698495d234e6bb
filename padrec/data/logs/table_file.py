"""Named columns of a CSV or Parquet file, as a query."""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from padrec.catalog import InputError
from padrec.data.text_file import is_gzipped, open_binary, read_lines

if TYPE_CHECKING:
    import ibis
    from ibis.backends.duckdb import Backend

_PARQUET_MAGIC = b"PAR1"
_LINE = re.compile(r"CSV Error on Line: (\d+)")
_WIDTH = re.compile(r"Expected Number of Columns: (\d+) Found: (\d+)")
_QUOTES = "a quotation mark that is not closed before a delimiter, expected pairs (or switch quoting off: quote '')"
# What DuckDB says, and what that means.
_CAUSES = {
    "unterminated quote": _QUOTES,
    "Maximum line size": f"too long a row: probably {_QUOTES}",
    "not utf-8": "not UTF-8, expected UTF-8 text",
    "invalid state": "broken quotation marks or mixed line ends, expected one kind of line end",
}


@dataclass(frozen=True)
class CSVFormat:
    """How CSV files are written.

    Attributes:
        delimiter: text between the fields, one to four characters.
        quote: character around fields that hold delimiters or line ends, doubled inside them; empty for none.
    """

    delimiter: str = ","
    quote: str = '"'


def read_table(
    reader: "Backend", path: Path, columns: Sequence[str], style: CSVFormat, header: Sequence[str] | None = None
) -> "ibis.Table":
    """The rows of a Parquet or CSV file, told apart by their content; DuckDB refuses a broken one.

    Args:
        reader: DuckDB.
        path: the file; CSV may be compressed by gzip.
        columns: names of the columns to read; those of a CSV file are strings, null where the field is empty.
        style: how a CSV file is written.
        header: names of all columns of a CSV file without a header line; None reads the line.
    """
    with open_binary(path) as file:
        is_parquet = file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC
    if is_parquet:
        table = reader.read_parquet(str(path))
        _check_columns(path, columns, table.columns)
    else:
        table = _read_csv(reader, path, columns, style, header)
    return table.select(list(dict.fromkeys(columns)))


def _read_csv(
    reader: "Backend", path: Path, columns: Sequence[str], style: CSVFormat, header: Sequence[str] | None
) -> "ibis.Table":
    names = _header_line(path, style) if header is None else header
    _check_columns(path, columns, names)
    # Columns that are not read may repeat a name.
    types = {name if name in columns else f"column {number}": "VARCHAR" for number, name in enumerate(names)}
    return reader.read_csv(
        str(path),
        columns=types,
        auto_detect=False,
        header=header is None,
        delim=style.delimiter,
        quote=style.quote,
        escape=style.quote,
        compression="gzip" if is_gzipped(path) else "none",
    )


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what DuckDB raises about a file into an InputError."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise InputError(f"{path}{explain(f': {error}')}") from None


def explain(reason: str) -> str:
    """Turn a message of DuckDB about a file into one line; other messages stay as they are."""
    line = _LINE.search(reason)
    place = f", line {line[1]}: " if line else ": "
    if width := _WIDTH.search(reason):
        return f"{place}{width[2]} fields, expected {width[1]}"
    for sign, cause in _CAUSES.items():
        if sign in reason:
            return f"{place}{cause}"
    return reason if "Error" not in reason else f"{place}broken ({' '.join(reason.strip(': ').split())})"


def _header_line(path: Path, style: CSVFormat) -> list[str]:
    for _, line in read_lines(path):
        text = line.removeprefix("\ufeff").split("\r")[0]
        if len(style.delimiter) > 1 or not style.quote:
            return text.split(style.delimiter)
        return next(csv.reader([text], delimiter=style.delimiter, quotechar=style.quote))
    raise InputError(f"{path}: empty, expected a header line with the names of the columns")


def _check_columns(path: Path, wanted: Sequence[str], found: Sequence[str]) -> None:
    for name in wanted:
        if (count := list(found).count(name)) != 1:
            problem = f"no column {name!r}" if count == 0 else f"{count} columns {name!r}"
            raise InputError(f"{path}: {problem} among {', '.join(found)}; expected each named column once")
