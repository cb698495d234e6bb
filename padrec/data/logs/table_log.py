"""Interactions as tables with named columns: CSV or Parquet."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from padrec.catalog import InputError, check_arguments
from padrec.data.logs.source import ItemText, LogSource, LogTable

if TYPE_CHECKING:
    from ibis.backends.duckdb import Backend

_ESCAPES = {r"\t": "\t", r"\0": "\0"}  # a shell hands them over as two characters


class TableLog(LogSource):
    r"""Reads tables of interactions, `.parquet` or CSV (compressed by gzip or not), and a table of items.

    Users and items may be strings or whole numbers. A time is a number since 1970, a timestamp or date column, or, in
    CSV, a date as in ISO 8601 (`2024-05-01T12:00:00`); dates without a zone are UTC.

    Args:
        interactions: one or more files with the same columns, read one after the other.
        user: column of the users' keys.
        item: column of the items' keys, in the interactions and in the item table.
        time: column of times.
        rating: column of ratings; None where there are none.
        time_unit: unit of times that are numbers.
        delimiter: text between the fields of a CSV file, one to four characters; `\t` is a tab.
        quote: character around CSV fields that hold delimiters or line ends; an empty string switches quoting off.
        columns: names for the columns of CSV files of interactions that have no header line; None reads the header.
        items: a table of items; None leaves the items without text.
        title: column of the item table.
        description: column of the item table; None where there is none.
        brand: column of the item table; None where there is none.
        categories: column of the item table, of strings or lists of strings; None where there is none.

    Raises:
        InputError: no file, or a delimiter or quote of a wrong length.
    """

    def __init__(
        self,
        interactions: str | Sequence[str],
        user: str = "user",
        item: str = "item",
        time: str = "time",
        rating: str | None = None,
        time_unit: Literal["s", "ms", "us"] = "s",
        delimiter: str = ",",
        quote: str = '"',
        columns: Sequence[str] | None = None,
        items: str | None = None,
        title: str = "title",
        description: str | None = None,
        brand: str | None = None,
        categories: str | None = None,
    ) -> None:
        check_arguments(TableLog, locals())
        paths = [interactions] if isinstance(interactions, str) else interactions
        if not paths:
            raise InputError("interactions names no file, expected at least one")
        self.paths = [Path(path) for path in paths]
        self.user = user
        self.item = item
        self.time = time
        self.rating = rating
        self.time_unit: Literal["s", "ms", "us"] = time_unit
        self.delimiter, self.quote = _ESCAPES.get(delimiter, delimiter), quote
        if not 1 <= len(self.delimiter.encode()) <= 4:
            raise InputError(f"delimiter is {delimiter!r}, expected one to four characters")
        if len(quote.encode()) > 1:
            raise InputError(f"quote is {quote!r}, expected one character, or an empty string for no quoting")
        self.columns = None if columns is None else list(columns)
        self.items = None if items is None else Path(items)
        self.text_columns = {"title": title, "description": description, "brand": brand, "categories": categories}

    def files(self) -> Sequence[Path]:
        """Interactions, then items."""
        return self.paths if self.items is None else [*self.paths, self.items]

    def settings(self) -> dict[str, object]:
        """Which columns are read, and how."""
        named = {"user": self.user, "item": self.item, "time": self.time, "rating": self.rating}
        how = {"time_unit": self.time_unit, "delimiter": self.delimiter, "quote": self.quote}
        return {**named, **how, "columns": self.columns, **({} if self.items is None else self.text_columns)}

    def interactions(self, reader: "Backend") -> Iterator[LogTable]:
        """One interaction per row, file by file."""
        from padrec.data.logs.table_file import explain, explained, log_rows, read_table

        wanted = [self.user, self.item, self.time, *([] if self.rating is None else [self.rating])]
        for path in self.paths:
            with explained(path):
                table = read_table(reader, path, wanted, self.delimiter, self.quote, self.columns)
                rows = log_rows(path, table, self.user, self.item, self.time, self.rating, self.time_unit)
            yield LogTable(path, rows, explain)

    def item_texts(self, reader: "Backend") -> Iterator[ItemText]:
        """One text per row of the item table."""
        from padrec.data.logs.table_file import explained, key, read_table

        if self.items is None:
            return
        fields = {field: column for field, column in self.text_columns.items() if column is not None}
        with explained(self.items):
            table = read_table(reader, self.items, [self.item, *fields.values()], self.delimiter, self.quote)
            columns = {field: table[name] for field, name in fields.items()}
            found = table.select(item=key(self.items, table, self.item), **columns).to_pyarrow()
        rows = (row for batch in found.to_batches() for row in batch.to_pylist())
        for number, row in enumerate(rows, start=1):
            if not row["item"]:
                raise InputError(f"{self.items}, row {number}: no {self.item}, expected a key")
            yield ItemText.published(row["item"], row, row.get("brand"), row.get("categories"))
