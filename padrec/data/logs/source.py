"""What a raw interaction log gives to the preparation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

# `time` in microseconds since 1970: the finest unit that spans all dates in 64 bits.
LOG_SCHEMA = pa.schema(
    [("user", pa.string()), ("item", pa.string()), ("time", pa.int64()), ("rating", pa.float64())],
)


@dataclass(frozen=True)
class LogChunk:
    """Some consecutive interactions of a log.

    Attributes:
        interactions: a table of `LOG_SCHEMA`; users, items and times without gaps, ratings null where the log has
            none.
        done: share of the log read so far, 0 … 1.
    """

    interactions: pa.Table
    done: float


@dataclass(frozen=True)
class ItemText:
    """What a log says about an item; empty where it says nothing.

    Attributes:
        item: the log's own key of the item.
        title: one line.
        description: any length.
        brand: maker or seller.
        categories: from general to special.
    """

    item: str
    title: str = ""
    description: str = ""
    brand: str = ""
    categories: tuple[str, ...] = ()


class LogSource(Protocol):
    """Reads one format of raw logs, in chunks, so that memory stays bounded.

    A source is a class of its own in a file of its own, with primitives as constructor arguments, so that a config can
    name it by `class_path`. Building one reads nothing.
    """

    def files(self) -> Sequence[Path]:
        """All files that are read; what is prepared is remembered with their fingerprints."""
        ...

    def settings(self) -> dict[str, object]:
        """The arguments that say how the files are read, as JSON values; paths are not among them."""
        ...

    def interactions(self) -> Iterator[LogChunk]:
        """The interactions in the order of the log.

        Raises:
            InputError: a file is missing or wrong; names the file and the line or row.
        """
        ...

    def item_texts(self) -> Iterator[ItemText]:
        """Texts of the items, in any order; of several texts of an item the first counts. None where there are none.

        Raises:
            InputError: a file is missing or wrong; names the file and the line or row.
        """
        ...
