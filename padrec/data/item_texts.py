"""Texts of items, which encoders embed, from item files and from prepared folders."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from padrec.catalog import InputError
from padrec.data.json_file import read_json_object
from padrec.data.preparation.prepared_folder import PreparedFolder
from padrec.data.readers.prepared import read_prepared_table

_LOG = logging.getLogger(__name__)
_FIELDS = ("title", "brand", "categories", "description")


@dataclass(frozen=True)
class ItemTexts:
    """Texts of the items."""

    keys: tuple[str, ...]  # [n]
    texts: tuple[str, ...]  # for an encoder, [n]
    fields: Mapping[str, tuple[str, ...]]  # by name, titles first: that of each item, [n], empty where it has none
    source: str  # named in errors

    @property
    def titles(self) -> tuple[str, ...]:
        """Titles for people, `[n]`."""
        return next(iter(self.fields.values()))


class TextReader(Protocol):
    """Reads the texts of items from one on-disk format."""

    def read(self) -> ItemTexts:
        """Read and check everything; a file that is missing or wrong is an InputError."""


@dataclass(frozen=True)
class ItemJSON(TextReader):
    """Reads `<name>.item.json` of LC-Rec and MiniOneRec: `{"item": {"title": …, "description": …, …}, …}`.

    An item's text has a line for each field. A field may be missing, or be a list of strings.

    Args:
        path: the file.
        fields: names of the fields, the title first.

    Raises:
        InputError: no fields; from `read`, an item without text in any field.
    """

    path: str
    fields: Sequence[str] = _FIELDS

    def __post_init__(self) -> None:
        if not self.fields:
            raise InputError("no fields of items to read, expected at least one")

    def read(self) -> ItemTexts:
        """See `TextReader`."""
        rows = []
        content = read_json_object(Path(self.path), "item -> properties")
        for item, properties in content.items():
            if not isinstance(properties, dict):
                raise InputError(f"{self.path}: item {item!r} has {properties!r}, expected an object of properties")
            rows.append([self._text(item, properties, field) for field in self.fields])
        columns = list(zip(*rows, strict=True))
        return _joined(list(content), columns, self.fields, self.path)

    def _text(self, item: str, properties: dict[str, object], field: str) -> str:
        value = properties.get(field) or ""
        parts = value if isinstance(value, list) else [value]
        words = [part.strip() for part in parts if isinstance(part, str)]
        if len(words) != len(parts):
            raise InputError(f"{self.path}: item {item!r} has the {field} {value!r}, expected text")
        return " ".join(words)


@dataclass(frozen=True)
class PreparedTexts(TextReader):
    """Reads the texts of the items in a folder that `padrec prepare` wrote.

    An item without any text gets its key as text; a warning counts such items.

    Args:
        folder: the prepared folder.
        fields: columns of its `items.parquet`, the title first.

    Raises:
        InputError: no fields, or one that prepared items do not have; from `read`, not a prepared folder.
    """

    folder: str
    fields: Sequence[str] = _FIELDS

    def __post_init__(self) -> None:
        if not self.fields or not set(self.fields) <= set(_FIELDS):
            raise InputError(f"fields {list(self.fields)} of prepared items, expected some of {', '.join(_FIELDS)}")

    def read(self) -> ItemTexts:
        """See `TextReader`."""
        folder = PreparedFolder(Path(self.folder))
        path, n_items = folder.items, folder.read_summary()["counts"]["items"]
        table = read_prepared_table(path, ["item", *self.fields], n_items)
        keys = table["item"].to_pylist()
        columns = [
            [" ".join(value) if isinstance(value, list) else value for value in table[field].to_pylist()]
            for field in self.fields
        ]
        silent = [row for row, texts in enumerate(zip(*columns, strict=True)) if not any(texts)]
        for row in silent:
            columns[0][row] = keys[row]
        if silent:
            _LOG.warning("%s: %d of %d items have no text; their keys replace it", path, len(silent), len(keys))
        return _joined(keys, columns, self.fields, str(path))


def _joined(keys: Sequence[str], columns: Sequence[Sequence[str]], fields: Sequence[str], source: str) -> ItemTexts:
    """Join the texts of every field (`[fields][n]`, the title first) to one line per field that is not empty."""
    texts = ["\n".join(filter(None, row)) for row in zip(*columns, strict=True)]
    for key, text in zip(keys, texts, strict=True):
        if not text:
            raise InputError(f"{source}: item {key!r} has no text in the fields {', '.join(fields)}")
    by_field = {field: tuple(text or "" for text in column) for field, column in zip(fields, columns, strict=True)}
    return ItemTexts(tuple(keys), tuple(texts), by_field, source)
