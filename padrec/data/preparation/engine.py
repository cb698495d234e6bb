"""The query engines that a preparation can run on."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from padrec.catalog import InputError, PositiveInt, check_arguments

if TYPE_CHECKING:
    import ibis
    from ibis.backends import BaseBackend


class Engine(Protocol):
    """Runs Ibis queries. Every engine gives the same rows."""

    def connect(self, scratch: Path) -> "Connection":
        """Start the engine, with a folder for data that outgrow the memory."""


class Connection:
    """An Ibis backend whose tables are Parquet files."""

    def __init__(self, backend: "BaseBackend") -> None:
        self.backend = backend

    def load(self, path: Path) -> "ibis.Table":
        """The table in a file, or in a folder of files."""
        return self.backend.read_parquet(str(path))

    def store(self, table: "ibis.Table", path: Path) -> "ibis.Table":
        """Write a table to a path that does not exist yet, in the order of its rows, and load it again."""
        self.backend.to_parquet(table, path)
        return self.load(path)

    def percent(self) -> float | None:
        """How far the running query is, 0 to 100; None where the engine does not say."""
        return None

    def close(self) -> None:
        """Free what the engine holds."""
        self.backend.disconnect()


@dataclass(frozen=True)
class DuckDBEngine(Engine):
    """DuckDB, in this process. What outgrows the memory is spilled to the output's disk.

    Args:
        memory: the most memory that DuckDB may use, such as `2GB`; the process needs some more for itself.
        threads: number of threads; None takes as many as there are cores, at most 4, since each needs memory.
    """

    memory: str = "2GB"
    threads: PositiveInt | None = None

    def __post_init__(self) -> None:
        check_arguments(DuckDBEngine, vars(self))

    def connect(self, scratch: Path) -> Connection:
        """Start DuckDB; refuses a memory that DuckDB does not understand."""
        import duckdb  # loaded only where a log is prepared
        import ibis

        threads = self.threads or min(4, os.cpu_count() or 1)
        try:
            backend = ibis.duckdb.connect(memory_limit=self.memory, temp_directory=str(scratch), threads=threads)
        except duckdb.Error as error:
            raise InputError(f"memory is {self.memory!r} ({error}), expected a size such as 2GB") from None
        backend.raw_sql("SET TimeZone = 'UTC'; SET enable_progress_bar = true; SET enable_progress_bar_print = false")
        return _DuckDBConnection(backend)


class _DuckDBConnection(Connection):
    def load(self, path: Path) -> "ibis.Table":
        return super().load(path / "*.parquet" if path.is_dir() else path)

    def store(self, table: "ibis.Table", path: Path) -> "ibis.Table":
        import duckdb

        try:
            return super().store(table, path)
        except duckdb.OutOfMemoryException as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"not enough memory ({reason}), expected more `memory` or fewer `threads`") from None
        except duckdb.IOException as error:
            if str(path) not in str(error):  # of a file that is read
                raise
            reason = str(error).splitlines()[0]
            raise InputError(f"{path}: cannot be written ({reason})") from None

    def percent(self) -> float | None:
        percent: float = self.backend.con.query_progress()
        return None if percent < 0 else percent


@dataclass(frozen=True)
class SparkEngine(Engine):
    """PySpark, for logs that outgrow one machine; needs Java and the extra `padrec[spark]`.

    The log itself is still read by DuckDB, in one pass on one machine; all queries after that run on Spark. The output
    must lie on a disk that all machines of a cluster share.

    Args:
        master: the cluster's address; `local[*]` takes all cores of this machine.
        settings: further Spark settings, such as `spark.driver.memory: 8g`.
    """

    master: str = "local[*]"
    settings: Mapping[str, str] | None = None

    def connect(self, scratch: Path) -> Connection:
        """Start Spark; an error says that PySpark is not installed, or does not start."""
        import ibis

        try:
            from pyspark.errors import PySparkException
            from pyspark.sql import SparkSession
        except ImportError:
            raise InputError("PySpark is not installed, expected it: pip install 'padrec[spark]'") from None
        builder = SparkSession.builder.master(self.master).appName("padrec prepare")
        for name, value in {"spark.local.dir": str(scratch), **(self.settings or {})}.items():
            builder = builder.config(name, value)
        try:
            return Connection(ibis.pyspark.connect(builder.getOrCreate()))
        except PySparkException as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"Spark does not start at {self.master} ({reason}), expected Java and a cluster") from None


@contextmanager
def connected(engine: Engine, scratch: Path) -> Iterator[Connection]:
    """A connection that is closed in the end, with an empty scratch folder."""
    import duckdb

    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    connection = engine.connect(scratch)
    try:
        yield connection
    except duckdb.IOException as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{scratch.parent}: cannot be read or written ({reason})") from None
    finally:
        connection.close()


def rows(table: "ibis.Table") -> list[dict[str, Any]]:
    """Run a query with a small result."""
    found: list[dict[str, Any]] = table.to_pyarrow().to_pylist()
    return found
