"""What a raw interaction log gives to the preparation."""

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from padrec.catalog import InputError

if TYPE_CHECKING:
    import ibis
    from ibis.backends.duckdb import Backend

LATEST = 4_102_444_800_000_000  # 2100 in microseconds since 1970; a later time was read in the wrong unit


@dataclass(frozen=True)
class LogTable:
    """One file of a log, as a query."""

    path: Path
    # One row per interaction, in the order of the file: `user` and `item` (string), `time` (int64, microseconds since
    # 1970), `rating` (float64, null where there is none) and `wrong` (string: what is wrong with the row, or null).
    rows: "ibis.Table"
    # Turns the message of DuckDB or of a wrong row into the text that follows the path: `: …`, or `, row 3: …`.
    explain: Callable[[str], str] = str

    def error(self, reason: str) -> InputError:
        """The error that names the file."""
        return InputError(f"{self.path}{self.explain(reason)}")


@dataclass(frozen=True)
class ItemText:
    """What a log says about an item; empty where it says nothing."""

    item: str  # the log's own key
    title: str = ""
    description: str = ""
    brand: str = ""  # maker or seller
    categories: tuple[str, ...] = ()  # from general to special

    @classmethod
    def published(cls, item: str, record: Mapping[str, object], brand: object, categories: object) -> "ItemText":
        """The text in published fields: strings, numbers, lists of paragraphs, or nothing.

        Of the record, `title` and `description` are read. Categories are a name, names, or lists of names (paths in a
        tree); each is kept once, in order.
        """
        return cls(item, _text(record.get("title")), _text(record.get("description")), _text(brand), _names(categories))


class LogSource(Protocol):
    """Reads one format of raw logs; building one reads nothing."""

    def files(self) -> Sequence[Path]:
        """All files that are read; what is prepared is stored with their fingerprints."""

    def settings(self) -> dict[str, object]:
        """The arguments that say how the files are read, as JSON values, without paths."""

    def interactions(self, reader: "Backend") -> Iterator[LogTable]:
        """The interactions, file by file in the order of the log, as queries of DuckDB.

        Raises:
            InputError: a file is missing or wrong; names the file and the line or row.
        """

    def item_texts(self, reader: "Backend") -> Iterator[ItemText]:
        """Texts of the items, in any order; the first text of an item counts. Errors as in `interactions`."""


def _text(value: object) -> str:
    """A text field on one line, without HTML entities."""
    parts = (_string(part) for part in (value if isinstance(value, list) else [value]))
    return " ".join(" ".join(html.unescape(part).split()) for part in parts if part and part.strip())


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        name = html.unescape(_string(value))
        return (name,) if name else ()
    return tuple(dict.fromkeys(name for part in value for name in _names(part)))


def _string(value: object) -> str:
    """A string, or a number such as the title 1984, as text that can be written; else an empty string."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()  # without halves of surrogate pairs
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return ""
    return str(int(value)) if value == value // 1 else str(value)
