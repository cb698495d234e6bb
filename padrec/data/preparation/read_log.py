"""A raw log as one kind of table, whatever its files are.

Loaded only while a log is prepared: importing Ibis takes a second.
"""

from collections.abc import Mapping

import duckdb
import ibis

from padrec.catalog import InputError
from padrec.data.logs import LogSource, LogTable
from padrec.data.preparation.engine import rows
from padrec.data.preparation.queries import LOG, row_count, well_rated
from padrec.data.preparation.stages import Stage

_ROW_BITS = 40  # rows of a file are numbered below 2^40


def read_log(stage: Stage, source: LogSource, min_rating: float | None) -> Mapping[str, int]:
    """Read every file once and check each row.

    Writes a table for each file: the columns of `LogTable`, and `position`, which ascends in the order of the log. The
    connection is one of DuckDB.

    Raises:
        InputError: the log is wrong, an interaction has no rating although `min_rating` is given, or none is left.
    """
    folder = stage.folder / LOG
    folder.mkdir()
    for number, log in enumerate(source.interactions(stage.connection.backend)):
        stage.progress.state = f"file {number + 1} of {len(source.files())}"
        table = log.rows.mutate(position=ibis.row_number() + (number << _ROW_BITS))
        if min_rating is not None:
            no_rating = table.rating.isnull().ifelse("no rating, expected one as min_rating is given", ibis.null(str))
            table = table.mutate(wrong=table.wrong.fill_null(no_rating))
        try:
            stored = stage.connection.store(table, folder / f"{number:06d}.parquet")
        except (duckdb.DataError, duckdb.ProgrammingError, duckdb.IOException) as error:
            raise log.error(f": {error}") from None
        _check(log, stored, number << _ROW_BITS)
    whole = stage.connection.load(folder)
    read, rated = row_count(whole), row_count(well_rated(whole, min_rating))
    if rated == 0:
        paths = ", ".join(str(path) for path in source.files())
        raise InputError(f"{paths}: {read} interactions, none with a rating of {min_rating}, expected some")
    stage.progress.state = f"{read:,} interactions, {rated:,} rated well enough"
    return {"read": read, "rated": rated}


def _check(log: LogTable, stored: ibis.Table, first: int) -> None:
    bad = stored.filter(stored.wrong.notnull()).order_by("position").limit(1)
    for row in rows(bad.select("position", "wrong")):
        raise log.error(f", row {row['position'] - first + 1}: {row['wrong']}")
    if row_count(stored) == 0:
        raise log.error(": a table without rows, expected at least one")
