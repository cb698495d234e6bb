"""Columns of tables as what a log needs: keys, numbers and times."""

from collections.abc import Callable
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from padrec.catalog import InputError
from padrec.data.logs.table_file import TablePiece

TimeUnit = Literal["s", "ms", "us"]
_MICROSECONDS: dict[TimeUnit, int] = {"s": 1_000_000, "ms": 1_000, "us": 1}
_Conversion = Callable[[pa.ChunkedArray], pa.ChunkedArray]


def keys(piece: TablePiece, name: str) -> pa.ChunkedArray:
    """A column of keys, as strings.

    Raises:
        InputError: the column holds neither strings nor whole numbers, or a row has no key.
    """
    column = piece.table[name]
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InputError(f"{piece.path}: column {name!r} is {column.type}, expected strings or whole numbers")
    texts = column.cast(pa.string())
    empty = pc.fill_null(pc.equal(texts, ""), True)
    if (row := pc.index(empty, True).as_py()) >= 0:
        raise InputError(f"{piece.path}, row {piece.first_row + row}: no {name}, expected a key")
    return texts


def numbers(piece: TablePiece, name: str) -> pa.ChunkedArray:
    """A column of numbers, as float64.

    Raises:
        InputError: a row has no number.
    """
    return _converted(piece, name, [lambda column: column.cast(pa.float64())], "a number")


def times(piece: TablePiece, name: str, unit: TimeUnit) -> pa.ChunkedArray:
    """A column of times, as microseconds since 1970 (int64); finer times are rounded down.

    Args:
        piece: rows of a table.
        name: the column.
        unit: what numbers count.

    Raises:
        InputError: a row has no time.
    """
    factor = _MICROSECONDS[unit]
    dates: list[_Conversion] = [_from_date, lambda column: _from_date(column, "UTC")]
    scaled: list[_Conversion] = [
        lambda column: pc.multiply_checked(column.cast(pa.int64()), factor),
        lambda column: pc.floor(pc.multiply(column.cast(pa.float64()), float(factor))).cast(pa.int64()),
    ]
    # A timestamp would pass for the integer that it is stored as.
    conversions = dates if pa.types.is_temporal(piece.table[name].type) else [*scaled, *dates]
    return _converted(piece, name, conversions, f"a number (time_unit: {unit}) or a date")


def _from_date(column: pa.ChunkedArray, zone: str | None = None) -> pa.ChunkedArray:
    return column.cast(pa.timestamp("us", zone), safe=pa.types.is_string(column.type)).cast(pa.int64())


def _converted(piece: TablePiece, name: str, conversions: list[_Conversion], expected: str) -> pa.ChunkedArray:
    """The first conversion that fits all rows.

    Raises:
        InputError: none does; names the first row that none fits.
    """
    column = piece.table[name]
    for convert in conversions:
        if (result := _try(convert, column)) is not None:
            return result
    for row in range(len(column)):
        value = column.slice(row, 1)
        if all(_try(convert, value) is None for convert in conversions):
            found = value[0].as_py()
            raise InputError(f"{piece.path}, row {piece.first_row + row}: {name} is {found!r}, expected {expected}")
    raise InputError(f"{piece.path}: column {name!r} mixes kinds of values, expected one kind: {expected}")


def _try(convert: _Conversion, column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    if column.null_count:
        return None
    try:
        return convert(column)
    except pa.ArrowException:
        return None
