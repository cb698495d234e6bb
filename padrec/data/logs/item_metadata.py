"""Published item metadata, one record per line."""

import html
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from padrec.catalog import InputError
from padrec.data.logs.text_lines import read_lines


def read_metadata(path: Path, parse: Callable[[str], object], key: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Item keys and records of one file.

    Args:
        path: the file, compressed by gzip or not.
        parse: turns a line into a record; raises a ValueError that says what is wrong.
        key: field with the item's key.

    Raises:
        InputError: the file is missing or a line is wrong; names the line.
    """
    for number, line in read_lines(path):
        try:
            record = parse(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: {error}") from None
        if not isinstance(record, dict):
            raise InputError(f"{path}, line {number}: a {type(record).__name__}, expected an object with {key}")
        item = record.get(key)
        if not isinstance(item, str) or not item:
            raise InputError(f"{path}, line {number}: {key} is {item!r}, expected a string that is not empty")
        yield item, record


def parse_json(line: str) -> object:
    """The JSON value of a line.

    Raises:
        ValueError: no valid JSON.
    """
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"no valid JSON at column {error.colno} ({error.msg}), expected an object") from None
    except RecursionError:
        raise ValueError("JSON nested too deeply, expected an object") from None


def text(value: object) -> str:
    """A text field: published ones are a string, a number, a list of paragraphs, or missing.

    Whitespace is normalised, and HTML entities become characters.
    """
    parts = (_string(part) for part in (value if isinstance(value, list) else [value]))
    return " ".join(" ".join(html.unescape(part).split()) for part in parts if part and part.strip())


def names(value: object) -> tuple[str, ...]:
    """A field with a list of names, or with lists of them (paths in a tree): each name once, in order."""
    if not isinstance(value, list):
        name = html.unescape(_string(value))
        return (name,) if name else ()
    return tuple(dict.fromkeys(name for part in value for name in names(part)))


def _string(value: object) -> str:
    """A string, or a number such as the title 1984, as text that can be written; else an empty string."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()  # without halves of surrogate pairs
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return ""
    return str(int(value)) if value == value // 1 else str(value)
