"""The interactions that a preparation keeps."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from padrec.catalog import InputError
from padrec.data.preparation.arrow_file import read_arrow, write_arrow
from padrec.data.preparation.k_core import core_rows, k_core
from padrec.data.preparation.log_partitions import N_PARTITIONS
from padrec.data.preparation.ordered_log import OrderedLog
from padrec.data.preparation.progress import Progress
from padrec.data.preparation.stages import read_json, write_json

_ITEMS = "items.arrow"
_COUNTS = "counts.json"


def find_core(log: OrderedLog, n_items: int, user_core: int, item_core: int, folder: Path) -> None:
    """Find the items of the log's k-core.

    Args:
        log: the log.
        n_items: number of items in the log.
        user_core: interactions that every user must have.
        item_core: interactions that every item must have.
        folder: gets the items and counts.

    Raises:
        InputError: no interaction is left.
    """
    progress = Progress("core")
    core = k_core(
        log.users_and_items,
        n_items,
        user_core,
        item_core,
        lambda number, left: progress.update(f"round {number}, {left:,} interactions left"),
    )
    if core.interactions == 0:
        raise InputError(
            f"none of {log.distinct} interactions is left with user_core {user_core} and item_core {item_core}, "
            "expected some: lower them"
        )
    write_arrow(folder / _ITEMS, pa.table({"kept": core.items}))
    write_json(folder / _COUNTS, {"core_rounds": core.rounds, "interactions": core.interactions})
    progress.end(f"{core.interactions:,} interactions, {int(core.items.sum()):,} items after {core.rounds} rounds")


@dataclass(frozen=True)
class CorePart:
    """The interactions of some users, all of theirs that are kept.

    Attributes:
        user_keys: the users' own keys, in the order of their first appearance in the log.
        users: number of each interaction's user within the part, ascending, int64 `[n]`.
        items: number of each interaction's item among the kept ones, int32 `[n]`.
        times: microseconds since 1970, ascending for each user, int64 `[n]`.
    """

    user_keys: pa.ChunkedArray
    users: NDArray[np.int64]
    items: NDArray[np.int32]
    times: NDArray[np.int64]

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Where each user's interactions start, and where the last user's end, `[users + 1]`."""
        counts = np.bincount(self.users, minlength=len(self.user_keys))
        return np.concatenate([[0], counts.cumsum()])


class CoreLog:
    """The kept interactions, part by part.

    Args:
        log: the whole log.
        folder: what `find_core` has written.
        user_core: interactions that every user must have.
    """

    def __init__(self, log: OrderedLog, folder: Path, user_core: int) -> None:
        self._log = log
        self._user_core = user_core
        self.items: NDArray[np.bool_] = read_arrow(folder / _ITEMS)["kept"].to_numpy()
        self._new_item = (self.items.cumsum() - 1).astype(np.int32)
        self.counts: dict[str, int] = read_json(folder / _COUNTS)

    def parts(self) -> Iterator[CorePart]:
        """All parts; each time they are read anew."""
        for number in range(N_PARTITIONS):
            table = self._log.interactions(number)
            users, items = table["user"].to_numpy(), table["item"].to_numpy()
            rows = core_rows(users, items, self.items, self._user_core).nonzero()[0]
            kept_users, new_users = np.unique(users[rows], return_inverse=True)
            keys = self._log.users(number).take(kept_users)
            yield CorePart(keys, new_users, self._new_item[items[rows]], table["time"].to_numpy()[rows])

    def times(self) -> Iterator[NDArray[np.int64]]:
        """The times of all parts."""
        return (part.times for part in self.parts())
