"""Columns of tables as what a log needs: keys, numbers and times.

Loaded only while a log is prepared: importing Ibis takes a second.
"""

import datetime
from pathlib import Path
from typing import Literal

import ibis

from padrec.catalog import InputError
from padrec.data.logs.source import LATEST

TimeUnit = Literal["s", "ms", "us"]
_MICROSECONDS: dict[TimeUnit, int] = {"s": 1_000_000, "ms": 1_000, "us": 1}


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
