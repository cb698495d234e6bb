"""The k-core of a log."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Items of whole users: each interaction's user, numbered within the piece, and its item, int `[n]` both.
UserPieces = Callable[[], Iterable[tuple[NDArray[np.int32], NDArray[np.int32]]]]


@dataclass(frozen=True)
class KCore:
    """The largest part of a log in which every user and every item has enough interactions.

    Attributes:
        items: which items are in it, bool `[n_items]`.
        rounds: passes over the log that it took.
        interactions: number of its interactions.
    """

    items: NDArray[np.bool_]
    rounds: int
    interactions: int


def k_core(
    pieces: UserPieces, n_items: int, user_core: int, item_core: int, on_round: Callable[[int, int], None]
) -> KCore:
    """Drop users and items with too few interactions until none is left that has too few.

    The log is read piece by piece, once in each round; only a count for each item is kept between pieces.

    Args:
        pieces: the log, a user's interactions all in one piece.
        n_items: number of items.
        user_core: interactions that every user must have.
        item_core: interactions that every item must have.
        on_round: is told the number of the round and the interactions of users that are left.
    """
    items = np.ones(n_items, dtype=np.bool_)
    rounds = 0
    while True:
        rounds += 1
        counts = np.zeros(n_items, dtype=np.int64)
        for users, piece_items in pieces():
            kept = core_rows(users, piece_items, items, user_core)
            counts += np.bincount(piece_items[kept], minlength=n_items)
        on_round(rounds, int(counts.sum()))
        # An item without any interaction left is no item of the core, also where `item_core` asks for none.
        enough = counts >= max(item_core, 1)
        if np.array_equal(enough, items):
            return KCore(items, rounds, int(counts.sum()))
        items = enough


def core_rows(
    users: NDArray[np.int32], items: NDArray[np.int32], core_items: NDArray[np.bool_], user_core: int
) -> NDArray[np.bool_]:
    """Which interactions of whole users are with items of the core and of users that have enough of these.

    Args:
        users: number of each interaction's user, `[n]`.
        items: number of each interaction's item, `[n]`.
        core_items: items of the core, bool `[n_items]`.
        user_core: interactions that every user must have.

    Returns:
        A flag for each interaction, bool `[n]`.
    """
    kept = core_items[items]
    enough: NDArray[np.bool_] = np.bincount(users[kept], minlength=int(users.max(initial=-1)) + 1) >= user_core
    return kept & enough[users]
