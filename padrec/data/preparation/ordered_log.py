"""A partitioned log in the order of users and time."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from padrec.data.preparation.arrow_file import read_arrow, write_arrow
from padrec.data.preparation.log_partitions import N_PARTITIONS, partition_name, read_partition
from padrec.data.preparation.progress import Progress
from padrec.data.preparation.stages import read_json, write_json
from padrec.data.preparation.time_order import time_order

_COUNTS = "counts.json"


def order_log(partitioned: Path, deduplicate: bool, folder: Path) -> None:
    """Number the users of each part, sort their interactions by time and drop repetitions.

    Args:
        partitioned: what `partition_log` has written.
        deduplicate: keep a user's first interaction with an item only.
        folder: gets a file of interactions and one of users' keys for each part, and counts.
    """
    progress = Progress("order")
    distinct = 0
    for number in range(N_PARTITIONS):
        table = read_partition(partitioned, number)
        encoded = table["user"].combine_chunks().dictionary_encode()
        users = encoded.indices.to_numpy()
        rows = time_order(users, table["item"].to_numpy(), table["time"].to_numpy(), deduplicate)
        ordered = pa.table({"user": users[rows], "item": table["item"].take(rows), "time": table["time"].take(rows)})
        write_arrow(folder / partition_name(number), ordered)
        write_arrow(_users_path(folder, number), pa.table({"user": encoded.dictionary}))
        distinct += len(rows)
        progress.update(f"{number + 1} of {N_PARTITIONS} parts")
    write_json(folder / _COUNTS, {"distinct": distinct})
    progress.end(f"{distinct:,} interactions")


class OrderedLog:
    """Reads what `order_log` has written, part by part.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def distinct(self) -> int:
        """Number of interactions."""
        count: int = read_json(self.folder / _COUNTS)["distinct"]
        return count

    def users_and_items(self) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
        """The interactions of each part: users, numbered within the part, and items, int32 `[n]` both."""
        for number in range(N_PARTITIONS):
            table = self.interactions(number)
            yield table["user"].to_numpy(), table["item"].to_numpy()

    def interactions(self, number: int) -> pa.Table:
        """The `user`, `item` and `time` of a part's interactions."""
        return read_arrow(self.folder / partition_name(number))

    def users(self, number: int) -> pa.ChunkedArray:
        """The keys of a part's users."""
        return read_arrow(_users_path(self.folder, number))["user"]


def _users_path(folder: Path, number: int) -> Path:
    return folder / f"users-{partition_name(number)}"
