"""Columns of a CSV or Parquet file, as a query: keys, numbers and times.

Loaded only while a log is prepared: importing Ibis takes a second.
"""

import csv
import datetime
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import duckdb
import ibis
from ibis.backends.duckdb import Backend

from padrec.catalog import InputError
from padrec.data.logs.source import LATEST
from padrec.data.text_file import is_gzipped, open_binary, read_lines

TimeUnit = Literal["s", "ms", "us"]
_MICROSECONDS: dict[TimeUnit, int] = {"s": 1_000_000, "ms": 1_000, "us": 1}
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


def read_table(
    reader: Backend, path: Path, columns: Sequence[str], delimiter: str, quote: str, header: Sequence[str] | None = None
) -> ibis.Table:
    """Columns of a Parquet or CSV file, told apart by their content; DuckDB refuses a broken one.

    CSV may be compressed by gzip. Its columns are strings, null where the field is empty; without a header line,
    `header` names all of them.
    """
    with open_binary(path) as file:
        is_parquet = file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC
    if is_parquet:
        table = reader.read_parquet(str(path))
        _check_columns(path, columns, table.columns)
        return table.select(list(dict.fromkeys(columns)))
    names = _header_line(path, delimiter, quote) if header is None else header
    _check_columns(path, columns, names)
    table = reader.read_csv(
        str(path),
        # Columns that are not read may repeat a name.
        columns={name if name in columns else f"column {place}": "VARCHAR" for place, name in enumerate(names)},
        auto_detect=False,
        header=header is None,
        delim=delimiter,
        quote=quote,
        escape=quote,
        compression="gzip" if is_gzipped(path) else "none",
    )
    return table.select(list(dict.fromkeys(columns)))


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what DuckDB raises about a file into an InputError."""
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


def _header_line(path: Path, delimiter: str, quote: str) -> list[str]:
    for _, line in read_lines(path):
        text = line.removeprefix("\ufeff").split("\r")[0]
        if len(delimiter) > 1 or not quote:
            return text.split(delimiter)
        return next(csv.reader([text], delimiter=delimiter, quotechar=quote))
    raise InputError(f"{path}: empty, expected a header line with the names of the columns")


def _check_columns(path: Path, wanted: Sequence[str], found: Sequence[str]) -> None:
    for name in wanted:
        if (count := list(found).count(name)) != 1:
            problem = f"no column {name!r}" if count == 0 else f"{count} columns {name!r}"
            raise InputError(f"{path}: {problem} among {', '.join(found)}; expected each named column once")


@ibis.udf.scalar.builtin  # type: ignore[untyped-decorator]
def epoch_us(time: ibis.dtype("timestamp('UTC')")) -> int:  # type: ignore[valid-type, empty-body]
    """DuckDB's function: microseconds since 1970."""


def log_rows(
    path: Path, table: ibis.Table, user: str, item: str, time: str, rating: str | None, unit: TimeUnit
) -> ibis.Table:
    """The columns of a log, see `LogTable`. Times are all numbers or all dates, as in the first row."""
    users, items = key(path, table, user), key(path, table, item)
    micros, time_wrong = _time(path, table, time, unit)
    number = ibis.null(float) if rating is None else table[rating].try_cast(float)
    rules = [
        (users.fill_null("") == "", f"no {user}, expected a key"),
        (items.fill_null("") == "", f"no {item}, expected a key"),
        time_wrong,
    ]
    if rating is not None:
        bad = number.isnull() | number.isnan()
        rules.append((bad, _found(table[rating], rating) + ", expected a number, with a point for decimals"))
    wrong = ibis.cases(*rules, else_=ibis.null(str))
    return table.select(user=users, item=items, time=micros, rating=number, wrong=wrong)


def key(path: Path, table: ibis.Table, name: str) -> ibis.Column:
    """A column of keys, strings or whole numbers, as strings."""
    column = table[name]
    if not (column.type().is_string() or column.type().is_integer()):
        raise InputError(f"{path}: column {name!r} is {column.type()}, expected strings or whole numbers")
    return column.cast(str)


def _time(
    path: Path, table: ibis.Table, name: str, unit: TimeUnit
) -> tuple[ibis.Column, tuple[ibis.Column, ibis.Column]]:
    """Microseconds since 1970, finer times rounded down; and for a wrong time a condition and a message."""
    column, factor = table[name], _MICROSECONDS[unit]
    expected = f", expected a number (time_unit: {unit}) or a date"
    is_text = column.type().is_string()
    number = column.try_cast(float) if is_text or column.type().is_numeric() else None
    if number is None or (is_text and _starts_with_a_date(table, column, number)):
        micros = epoch_us(column.try_cast("timestamp('UTC')"))
        return micros, (micros.isnull() | (micros.abs() > LATEST), _found(column, name) + f"{expected} before 2100")
    if unit == "s":
        _check_no_days(path, table.select(time=number))
    # Whole numbers stay exact; DuckDB would round others.
    whole = ~column.cast(str).contains(".") if is_text else ibis.literal(column.type().is_integer())
    good = (number.abs() <= LATEST / factor).fill_null(False) & ~number.isnan()
    exact = ibis.ifelse(
        good & whole,
        column.try_cast("int64") * factor,
        (good.ifelse(number, 0.0) * float(factor)).floor().cast("int64"),
    )
    fits = ibis.cases(
        (number.abs() <= LATEST / 1e3, "; time_unit: ms fits"),
        (number.abs() <= LATEST, "; time_unit: us fits"),
        else_="",
    )
    advice = (number.abs() > LATEST / factor).ifelse(" before 2100" + fits, " of the same kind as in row 1")
    return exact, (~good, _found(column, name) + expected + advice.fill_null(""))


def _check_no_days(path: Path, times: ibis.Table) -> None:
    """Refuse dates such as 20240501, which as seconds would all be in 1970."""
    for time in times.limit(1).to_pyarrow()["time"].to_pylist():
        try:
            day = datetime.datetime.strptime(str(int(time)), "%Y%m%d").date()
        except (TypeError, ValueError, OverflowError):  # no number, or one that is no date
            continue
        if 1900 <= day.year < 2100:
            raise InputError(f"{path}, row 1: time is {int(time)}, expected a date as {day}, or seconds since 1970")


def _starts_with_a_date(table: ibis.Table, column: ibis.Column, number: ibis.Column) -> bool:
    first = table.select(date=number.isnull() & column.try_cast("timestamp('UTC')").notnull()).limit(1)
    return any(first.to_pyarrow()["date"].to_pylist())


def _found(column: ibis.Column, name: str) -> ibis.Column:
    if column.type().is_string():
        return f"{name} is '" + column.fill_null("") + "'"
    return f"{name} is " + column.cast(str).fill_null("None")
