from collections import Counter
from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from padrec.data.preparation.k_core import core_rows, k_core

Pairs = list[tuple[int, int]]
N_ITEMS = 6


def reference_core(pairs: Pairs, user_core: int, item_core: int) -> Pairs:
    """Drops one user or item at a time."""
    while True:
        users, items = Counter(user for user, _ in pairs), Counter(item for _, item in pairs)
        kept = [(u, i) for u, i in pairs if users[u] >= user_core and items[i] >= item_core]
        if kept == pairs:
            return pairs
        pairs = kept


@given(
    pairs=st.lists(st.tuples(st.integers(0, 7), st.integers(0, N_ITEMS - 1)), max_size=60),
    user_core=st.integers(1, 4),
    item_core=st.integers(1, 4),
)
def test_the_core_is_that_of_dropping_one_after_the_other(pairs: Pairs, user_core: int, item_core: int) -> None:
    pairs = sorted(pairs)
    users = np.array([user for user, _ in pairs], dtype=np.int32)
    items = np.array([item for _, item in pairs], dtype=np.int32)

    def pieces() -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
        for inside in (users < 4, users >= 4):  # a user's interactions lie in one piece
            yield users[inside] % 4, items[inside]

    rounds: list[tuple[int, int]] = []
    core = k_core(pieces, N_ITEMS, user_core, item_core, lambda number, left: rounds.append((number, left)))

    found = [
        (user + first, item)
        for first, (piece_users, piece_items) in zip((0, 4), pieces(), strict=True)
        for user, item, kept in zip(
            piece_users.tolist(),
            piece_items.tolist(),
            core_rows(piece_users, piece_items, core.items, user_core),
            strict=True,
        )
        if kept
    ]
    expected = reference_core(pairs, user_core, item_core)
    assert found == expected
    assert core.items.nonzero()[0].tolist() == sorted({item for _, item in expected})
    assert core.interactions == len(expected)
    assert rounds[-1] == (core.rounds, len(expected))
    assert [number for number, _ in rounds] == list(range(1, core.rounds + 1))


def test_dropping_goes_on_until_nothing_changes() -> None:
    # A chain: each user shares one item with the next, so one user after the other falls.
    pairs = [(user, user + step) for user in range(5) for step in range(2)]
    users, items = (np.array(column, dtype=np.int32) for column in zip(*pairs, strict=True))
    core = k_core(lambda: [(users, items)], 6, 2, 2, lambda number, left: None)
    assert (core.interactions, core.rounds) == (0, 4)
