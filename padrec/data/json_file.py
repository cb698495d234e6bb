"""JSON files as people hand them over, with every mistake named, and one that says what a folder is made of."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from padrec.catalog import InputError
from padrec.catalog.whole_output import PARTIAL, written_whole
from padrec.data.text_file import read_text


def read_json_object(path: Path, expected: str) -> dict[str, object]:
    """Read a JSON object that is not empty and repeats no key; `expected` says what it is for, such as `item -> codes`.

    Another file, or none, is an InputError.
    """

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in pairs:
            if key in found:
                raise InputError(f"{path}: key {key!r} occurs twice, expected every key once")
            found[key] = value
        return found

    text = read_text(path)
    try:
        content = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{path}: no valid JSON at {place} ({error.msg}), expected an object {expected}") from None
    _check_characters(path, text, content)
    if not isinstance(content, dict) or not content:
        kind = "an empty object" if content == {} else f"a JSON {type(content).__name__}"
        raise InputError(f"{path}: {kind}, expected an object {expected}")
    return content


def read_json_lines(path: Path, expected: str) -> Iterator[tuple[str, dict[str, object]]]:
    """The objects of a file with one on each line, each with its place for messages; `expected` shows such a line.

    Another line, no line and no file are an InputError.
    """
    lines = read_text(path).removesuffix("\n").split("\n")  # JSON strings may hold other line separators, as U+2028
    if lines == [""]:
        raise InputError(f"{path}: empty, expected lines {expected}")
    for number, line in enumerate(lines, start=1):
        place = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{place}: no valid JSON ({error.msg}), expected {expected}") from None
        if not isinstance(row, dict):
            raise InputError(f"{place}: a JSON {type(row).__name__}, expected {expected}")
        _check_characters(place, line, row)
        yield place, row


def check_made_of(folder: Path, name: str, made_of: Mapping[str, object], what: str) -> None:
    """Refuse a folder of unfinished work that depends on other things than these; a new one notes them in a file.

    `what` are the work's results, for the message.
    """
    file = folder / name
    if not file.exists():
        if any(child.suffix != PARTIAL for child in folder.iterdir()):
            raise InputError(f"{folder}: holds other files, expected a new or empty folder, or a cache")
        with written_whole(file) as part:
            part.write_text(json.dumps(made_of, indent=2) + "\n")
    found = read_json_object(file, f"of what {what} depend on")
    if other := [key for key, value in made_of.items() if found.get(key) != value]:
        expected = "expected those of this config: remove the folder, or name another"
        raise InputError(f"{folder}: {what} of another {', '.join(other)}, {expected}")


def _check_characters(place: object, text: str, content: object) -> None:
    r"""Refuse half of a surrogate pair, such as `\ud83d` alone: nothing could be written that holds it."""
    if r"\ud" in text.lower():  # the only way that one gets into a decoded text
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise InputError(rf"{place}: half of a surrogate pair (\ud…), expected whole characters") from None
