"""Interactions as JSON lines, one object per interaction."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from padrec.data.logs.item_metadata import parse_json
from padrec.data.logs.source import LATEST, LogTable
from padrec.data.logs.text_lines import is_gzipped, read_lines

if TYPE_CHECKING:
    from ibis.backends.duckdb import Backend

_MICROSECONDS = {"seconds": 1_000_000, "milliseconds": 1_000}


@dataclass(frozen=True)
class JsonFields:
    """What the fields of an interaction are called.

    Attributes:
        user: a string.
        item: a string.
        rating: a number.
        time: a whole number since 1970.
        time_unit: unit of `time`.
    """

    user: str
    item: str
    rating: str
    time: str
    time_unit: Literal["seconds", "milliseconds"]


def read_json_log(reader: "Backend", path: Path, fields: JsonFields) -> LogTable:
    """The interactions of one file, compressed by gzip or not; other fields are ignored.

    Raises:
        InputError: the file is missing.
    """
    import ibis

    columns = dict.fromkeys((fields.user, fields.item, fields.time, fields.rating), "JSON")
    compression = "gzip" if is_gzipped(path) else "none"
    raw = reader.read_json(str(path), columns=columns, format="newline_delimited", compression=compression)
    user, item, time, rating = (
        raw[fields.user].str,
        raw[fields.item].str,
        raw[fields.time].int,
        raw[fields.rating].float,
    )
    factor = _MICROSECONDS[fields.time_unit]
    good = (user != "") & (item != "") & (time.abs() <= LATEST // factor) & ~rating.isnan()
    rows = raw.select(
        user=user,
        item=item,
        time=good.ifelse(time, 0) * factor,
        rating=rating,
        wrong=good.fill_null(False).ifelse(ibis.null(str), "wrong"),
    )
    return LogTable(path, rows, lambda reason: _first_wrong_line(path, fields, reason))


def _first_wrong_line(path: Path, fields: JsonFields, reason: str) -> str:
    """Name the first wrong line: DuckDB is fast but does not count blank lines; only a wrong file is read again."""
    number = 0
    for number, line in read_lines(path):
        if problem := _problem(line, fields):
            return f", line {number}: {problem}"
    if number == 0:
        return ": empty, expected one JSON object per line"
    return f": cannot be read ({' '.join(reason.split())}), expected one JSON object per line"


def _problem(line: str, fields: JsonFields) -> str | None:
    try:
        record = parse_json(line)
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return r"half of a surrogate pair (\ud800 to \udfff), expected whole characters"
    except ValueError as error:
        return str(error)
    if not isinstance(record, dict):
        return f"a JSON {type(record).__name__}, expected an object"
    for name in (fields.user, fields.item):
        if not isinstance(record.get(name), str) or not record[name]:
            return f"{name} is {record.get(name)!r}, expected a string that is not empty"
    rating, time = record.get(fields.rating), record.get(fields.time)
    if type(rating) not in (int, float) or rating != rating:
        return f"{fields.rating} is {rating!r}, expected a number"
    if type(time) is not int or abs(time) * _MICROSECONDS[fields.time_unit] > LATEST:
        return f"{fields.time} is {time!r}, expected a whole number of {fields.time_unit} since 1970, before 2100"
    return None
