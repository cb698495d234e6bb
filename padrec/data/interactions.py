"""Who interacted with what, in time order."""

from collections import Counter
from dataclasses import dataclass

from padrec.catalog import InputError
from padrec.data.item_sequences import ItemSequences


@dataclass(frozen=True)
class Interactions:
    """Every user's whole item sequence in time order, not split yet.

    Attributes:
        user_keys: the users' own keys, `[n_users]`, all different.
        sequences: item indices, one row per user, none empty.
        source: the file they were read from, named in errors.

    Raises:
        InputError: no users, a duplicate user key, or a user without items.
    """

    user_keys: tuple[str, ...]
    sequences: ItemSequences
    source: str = "interactions"

    def __post_init__(self) -> None:
        check_user_keys(self.user_keys, len(self.sequences), self.source)
        empty = (self.sequences.lengths == 0).nonzero().flatten().tolist()
        if empty:
            named = name_users([self.user_keys[user] for user in empty])
            raise InputError(f"{self.source}: {named} without items, expected at least one item for every user")


def check_user_keys(user_keys: tuple[str, ...], n_rows: int, source: str) -> None:
    """Refuse user keys that do not name every row exactly once.

    Raises:
        InputError: no users, a number of keys other than `n_rows`, or a duplicate key.
    """
    if not user_keys:
        raise InputError(f"{source}: no users, expected at least one")
    if len(user_keys) != n_rows:
        raise InputError(f"{source}: {len(user_keys)} user keys for {n_rows} sequences, expected one for each")
    key, count = Counter(user_keys).most_common(1)[0]
    if count > 1:
        raise InputError(f"{source}: user key {key!r} occurs {count} times, expected every key once")


def name_users(keys: list[str], shown: int = 5) -> str:
    """A count and the first few keys for a message: `3 users ('a', 'b', 'c')`."""
    names = ", ".join(repr(key) for key in keys[:shown]) + (", …" if len(keys) > shown else "")
    return f"{len(keys)} user{'s' if len(keys) > 1 else ''} ({names})"
