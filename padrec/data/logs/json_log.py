"""Interactions as JSON lines, one object per interaction."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from padrec.catalog import InputError
from padrec.data.logs.source import LogChunk
from padrec.data.logs.text_lines import is_gzipped, open_binary, read_lines

_MICROSECONDS = {"seconds": 1_000_000, "milliseconds": 1_000}
_BLOCK_BYTES = 1 << 22  # the longest line that can be read; a review with its text has some kilobytes


@dataclass(frozen=True)
class JsonFields:
    """What the fields of an interaction are called.

    Attributes:
        user: a string.
        item: a string.
        rating: a number.
        time: a whole number since 1970.
        time_unit: what `time` counts.
    """

    user: str
    item: str
    rating: str
    time: str
    time_unit: Literal["seconds", "milliseconds"]


def read_json_log(path: Path, fields: JsonFields) -> Iterator[LogChunk]:
    """The interactions of one file, compressed by gzip or not; other fields are ignored.

    Raises:
        InputError: the file is missing, or a line is no JSON object or lacks a field; names the line.
    """
    wire = {fields.user: pa.string(), fields.item: pa.string(), fields.time: pa.int64(), fields.rating: pa.float64()}
    options = pa.json.ParseOptions(explicit_schema=pa.schema(list(wire.items())), unexpected_field_behavior="ignore")
    blocks = pa.json.ReadOptions(block_size=_BLOCK_BYTES)
    size = path.stat().st_size if path.is_file() else 0
    with open_binary(path) as raw:
        try:
            stream = pa.input_stream(raw, compression="gzip" if is_gzipped(path) else None)
            for batch in pa.json.open_json(stream, blocks, options):
                table = pa.Table.from_batches([batch])
                yield LogChunk(_log_columns(table, fields), raw.tell() / size)
        except (pa.ArrowException, OSError, OverflowError) as error:
            # Arrow is fast but does not say in which line; only a wrong file is read a second time.
            raise _wrong_line(path, fields, str(error)) from None


def _log_columns(table: pa.Table, fields: JsonFields) -> pa.Table:
    names = (fields.user, fields.item, fields.time, fields.rating)
    user, item, time, rating = (table[name] for name in names)
    gaps = [column.null_count > 0 for column in (user, item, time, rating)]
    if any(gaps) or pc.any(pc.or_(pc.equal(user, ""), pc.equal(item, ""))).as_py():
        raise pa.ArrowInvalid(f"{' or '.join(names)} is missing")
    micros = pc.multiply_checked(time, _MICROSECONDS[fields.time_unit])
    return pa.table({"user": user, "item": item, "time": micros, "rating": rating})


def _wrong_line(path: Path, fields: JsonFields, reason: str) -> InputError:
    """The error that names the first wrong line; without one, the reason that the fast reader gave."""
    found = False
    for number, line in read_lines(path):
        found = True
        if problem := _problem(line, fields):
            return InputError(f"{path}, line {number}: {problem}")
    if not found:
        return InputError(f"{path}: empty, expected one JSON object per line")
    return InputError(f"{path}: cannot be read ({reason}), expected one JSON object per line")


def _problem(line: str, fields: JsonFields) -> str | None:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        return f"no valid JSON at column {error.colno} ({error.msg}), expected an object"
    if not isinstance(record, dict):
        return f"a JSON {type(record).__name__}, expected an object"
    for name in (fields.user, fields.item):
        if not isinstance(record.get(name), str) or not record[name]:
            return f"{name} is {record.get(name)!r}, expected a string that is not empty"
    if type(record.get(fields.rating)) not in (int, float):
        return f"{fields.rating} is {record.get(fields.rating)!r}, expected a number"
    time = record.get(fields.time)
    if type(time) is not int or abs(time * _MICROSECONDS[fields.time_unit]) >= 1 << 63:
        return f"{fields.time} is {time!r}, expected a whole number of {fields.time_unit} since 1970"
    return None
