"""What is written about items."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from padrec.catalog import InputError
from padrec.data.json_file import read_json_object


@dataclass(frozen=True)
class ItemTexts:
    """A text of each item.

    Attributes:
        keys: item keys, `[n]`.
        texts: what an encoder reads, `[n]`.
        titles: what people read, `[n]`.
        source: where they were read from.
    """

    keys: tuple[str, ...]
    texts: tuple[str, ...]
    titles: tuple[str, ...]
    source: str


class TextReader(Protocol):
    """Reads the texts of items from one on-disk format."""

    def read(self) -> ItemTexts:
        """Read and check everything.

        Raises:
            InputError: a file is missing or wrong.
        """
        ...


class ItemJSON(TextReader):
    """Reads `<name>.item.json` of LC-Rec and MiniOneRec: `{"item": {"title": …, "description": …, …}, …}`.

    An item's text is its fields one behind the other, a line each. A field may be missing, or be a list of strings.

    Args:
        path: the file.
        fields: which fields, the title first.

    Raises:
        InputError: no fields.
    """

    def __init__(self, path: str, fields: Sequence[str] = ("title", "brand", "categories", "description")) -> None:
        if not fields:
            raise InputError("no fields of items to read, expected at least one")
        self._path = Path(path)
        self._fields = tuple(fields)

    def read(self) -> ItemTexts:
        """See `TextReader`.

        Raises:
            InputError: the file is missing or malformed, or an item has no text in any field.
        """
        rows = []
        content = read_json_object(self._path, "item -> properties")
        for item, properties in content.items():
            if not isinstance(properties, dict):
                raise InputError(f"{self._path}: item {item!r} has {properties!r}, expected an object of properties")
            rows.append([self._text(item, properties, field) for field in self._fields])
        columns = list(zip(*rows, strict=True))
        return joined_texts(list(content), columns, self._fields, str(self._path))

    def _text(self, item: str, properties: dict[str, object], field: str) -> str:
        value = properties.get(field) or ""
        parts = value if isinstance(value, list) else [value]
        words = [part.strip() for part in parts if isinstance(part, str)]
        if len(words) != len(parts):
            raise InputError(f"{self._path}: item {item!r} has the {field} {value!r}, expected text")
        return " ".join(words)


def joined_texts(
    keys: Sequence[str], columns: Sequence[Sequence[str]], fields: Sequence[str], source: str
) -> ItemTexts:
    """Items' texts, a line for each field that says something; what comes first is the title.

    Args:
        keys: item keys, `[n]`.
        columns: each field's text of every item, `[fields][n]`; empty where it says nothing.
        fields: names of the fields, for the message.
        source: where the texts were read from.

    Raises:
        InputError: an item has no text in any field.
    """
    texts = ["\n".join(filter(None, row)) for row in zip(*columns, strict=True)]
    for key, text in zip(keys, texts, strict=True):
        if not text:
            raise InputError(f"{source}: item {key!r} has no text in the fields {', '.join(fields)}")
    return ItemTexts(tuple(keys), tuple(texts), tuple(columns[0]), source)
