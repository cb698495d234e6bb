"""Interactions as tables with named columns: CSV or Parquet."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from padrec.catalog import InputError
from padrec.data.logs.item_metadata import names, text
from padrec.data.logs.source import ItemText, LogChunk, LogSource
from padrec.data.logs.table_columns import TimeUnit, keys, numbers, times
from padrec.data.logs.table_file import TablePiece, read_table


class TableLog(LogSource):
    """Reads tables of interactions, `.parquet` or CSV (compressed by gzip or not), and a table of items.

    Users and items may be strings or whole numbers. A time is a number since 1970, a timestamp or date column, or, in
    CSV, a date as in ISO 8601 (`2024-05-01T12:00:00`); dates without a zone are UTC.

    Args:
        interactions: one or more files with the same columns, read one behind the other.
        user: column of the users' keys.
        item: column of the items' keys, in the interactions and in the item table.
        time: column of times.
        rating: column of ratings; None where there are none.
        time_unit: what times count that are numbers.
        delimiter: character between the fields of a CSV file.
        columns: names for the columns of CSV files of interactions that have no header line; None reads the header.
        items: a table of items; None leaves the items without text.
        title: column of the item table.
        description: column of the item table; None where there is none.
        brand: column of the item table; None where there is none.
        categories: column of the item table, of strings or lists of strings; None where there is none.
    """

    def __init__(
        self,
        interactions: Sequence[str],
        user: str = "user",
        item: str = "item",
        time: str = "time",
        rating: str | None = None,
        time_unit: TimeUnit = "s",
        delimiter: str = ",",
        columns: Sequence[str] | None = None,
        items: str | None = None,
        title: str = "title",
        description: str | None = None,
        brand: str | None = None,
        categories: str | None = None,
    ) -> None:
        paths = [interactions] if isinstance(interactions, str) else interactions
        if not paths:
            raise InputError("interactions names no file, expected at least one")
        self.paths = [Path(path) for path in paths]
        self.user = user
        self.item = item
        self.time = time
        self.rating = rating
        self.time_unit = time_unit
        self.delimiter = delimiter
        self.columns = None if columns is None else list(columns)
        self.items = None if items is None else Path(items)
        self.text_columns = {"title": title, "description": description, "brand": brand, "categories": categories}

    def files(self) -> Sequence[Path]:
        """Interactions, then items."""
        return self.paths if self.items is None else [*self.paths, self.items]

    def settings(self) -> dict[str, object]:
        """Which columns are read, and how."""
        named = {"user": self.user, "item": self.item, "time": self.time, "rating": self.rating}
        how = {"time_unit": self.time_unit, "delimiter": self.delimiter, "columns": self.columns}
        return {**named, **how, **({} if self.items is None else self.text_columns)}

    def interactions(self) -> Iterator[LogChunk]:
        """One interaction per row, file by file.

        Raises:
            InputError: a file is missing or broken or lacks a column, or a row has a gap or a wrong value.
        """
        wanted = [self.user, self.item, self.time, *([] if self.rating is None else [self.rating])]
        for number, path in enumerate(self.paths):
            for piece in read_table(path, wanted, self.delimiter, self.columns):
                yield LogChunk(self._log_columns(piece), (number + piece.done) / len(self.paths))

    def item_texts(self) -> Iterator[ItemText]:
        """One text per row of the item table.

        Raises:
            InputError: the file is missing or broken or lacks a column, or a row has no item.
        """
        if self.items is None:
            return
        fields = {field: column for field, column in self.text_columns.items() if column is not None}
        for piece in read_table(self.items, [self.item, *fields.values()], self.delimiter):
            columns = {field: piece.table[column].to_pylist() for field, column in fields.items()}
            nothing = [None] * len(piece.table)
            rows = zip(
                keys(piece, self.item).to_pylist(),
                *(columns.get(field, nothing) for field in self.text_columns),
                strict=True,
            )
            for item, title, description, brand, categories in rows:
                yield ItemText(item, text(title), text(description), text(brand), names(categories))

    def _log_columns(self, piece: TablePiece) -> pa.Table:
        rating = pa.nulls(len(piece.table), pa.float64()) if self.rating is None else numbers(piece, self.rating)
        return pa.table(
            {
                "user": keys(piece, self.user),
                "item": keys(piece, self.item),
                "time": times(piece, self.time, self.time_unit),
                "rating": rating,
            }
        )
