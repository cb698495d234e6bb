"""The texts of prepared items."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from padrec.catalog import InputError
from padrec.data.preparation import PreparedFolder
from padrec.quantization.item_texts import ItemTexts, TextReader, joined_texts

_LOG = logging.getLogger(__name__)
_FIELDS = ("title", "brand", "categories", "description")


class PreparedTexts(TextReader):
    """Reads the texts of the items that `padrec prepare` has kept.

    Where the log says nothing about an item, its key stands for it; such items are counted in a warning.

    Args:
        folder: the prepared folder.
        fields: which columns of its `items.parquet`, the title first.

    Raises:
        InputError: no fields, or one that prepared items do not have.
    """

    def __init__(self, folder: str, fields: Sequence[str] = _FIELDS) -> None:
        if not fields or not set(fields) <= set(_FIELDS):
            raise InputError(f"fields {list(fields)} of prepared items, expected some of {', '.join(_FIELDS)}")
        self._folder = PreparedFolder(Path(folder))
        self._fields = tuple(fields)

    def read(self) -> ItemTexts:
        """See `TextReader`.

        Raises:
            InputError: the folder is none that was prepared.
        """
        self._folder.read_summary()
        path = self._folder.items
        try:
            table = pq.read_table(path, columns=["item", *self._fields])
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: cannot be read ({reason}), expected it as it was prepared") from None
        keys = table["item"].to_pylist()
        columns = [[_text(value) for value in table[field].to_pylist()] for field in self._fields]
        silent = [row for row, texts in enumerate(zip(*columns, strict=True)) if not any(texts)]
        for row in silent:
            columns[0][row] = keys[row]
        if silent:
            _LOG.warning("%s: %d of %d items have no text, their keys stand for them", path, len(silent), len(keys))
        return joined_texts(keys, columns, self._fields, str(path))


def _text(value: str | list[str]) -> str:
    return " ".join(value) if isinstance(value, list) else value
