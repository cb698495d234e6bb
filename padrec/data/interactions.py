"""Users' items in time order, whole or split into training, validation and test."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from padrec.catalog import InputError
from padrec.data.item_sequences import ItemSequences

_LEAVE_ONE_OUT_ITEMS = 3


@dataclass(frozen=True)
class Interactions:
    """Every user's whole item sequence in time order.

    Raises:
        InputError: no users, a duplicate user key, or a user without items.
    """

    user_keys: tuple[str, ...]  # the users' own keys, [n_users], all distinct
    sequences: ItemSequences  # item indices, one row per user, none empty
    source: str = "interactions"  # named in errors

    def __post_init__(self) -> None:
        _check_users(self.user_keys, self.parts, self.source)

    @property
    def parts(self) -> tuple[ItemSequences, ...]:
        """All sequences."""
        return (self.sequences,)


@dataclass(frozen=True)
class Split:
    """Every user's items in three parts, each in time order; a part may be empty for a user.

    The history for validation is the training items, the history for the test the training and validation items. The
    ground truth is all items of the user's part: one under leave-one-out, any number under a split by time.

    Raises:
        InputError: no users, a duplicate user key, parts of different users, or a user without items.
    """

    user_keys: tuple[str, ...]  # the users' own keys, [n_users], all distinct
    train: ItemSequences  # item indices to train on, one row per user
    validation: ItemSequences  # ground truth of validation, one row per user
    test: ItemSequences  # ground truth of the test, one row per user
    source: str = "split"  # named in errors

    def __post_init__(self) -> None:
        _check_users(self.user_keys, self.parts, self.source)

    @property
    def parts(self) -> tuple[ItemSequences, ...]:
        """Training, validation and test."""
        return self.train, self.validation, self.test

    @property
    def test_history(self) -> ItemSequences:
        """The history for the test: training items, then validation items."""
        return self.train.followed_by(self.validation)


def leave_one_out(interactions: Interactions, short_users: Literal["error", "drop"] = "error") -> Split:
    """Use each user's last item for the test, the one before for validation and the others for training.

    Users with fewer than three items are an InputError or, as long as there are others, dropped.
    """
    sequences = interactions.sequences
    enough = sequences.lengths >= _LEAVE_ONE_OUT_ITEMS
    rows = enough.nonzero().flatten()
    if len(rows) < len(sequences):
        short = [interactions.user_keys[user] for user in (~enough).nonzero().flatten().tolist()]
        found = f"{interactions.source}: {_name_users(short)} with fewer than {_LEAVE_ONE_OUT_ITEMS} items"
        if short_users == "error":
            expected = "at least one item each to train, validate and test"
            raise InputError(f"{found}, expected {expected}; short_users: drop leaves such users out")
        if len(rows) == 0:
            raise InputError(f"{found}: nobody is left after dropping them")
    kept = sequences.select(rows)
    ends = kept.ends
    return Split(
        user_keys=tuple(interactions.user_keys[user] for user in rows.tolist()),
        train=kept.slices(kept.starts, ends - 2),
        validation=kept.slices(ends - 2, ends - 1),
        test=kept.slices(ends - 1, ends),
        source=interactions.source,
    )


def _check_users(user_keys: tuple[str, ...], parts: Sequence[ItemSequences], source: str) -> None:
    """Check that there are users, and that each has a distinct key, a row in every part and an item in some part."""
    if not user_keys:
        raise InputError(f"{source}: no users, expected at least one")
    for part in parts:
        if len(user_keys) != len(part):
            raise InputError(f"{source}: {len(user_keys)} user keys for {len(part)} sequences, expected one for each")
    key, count = Counter(user_keys).most_common(1)[0]
    if count > 1:
        raise InputError(f"{source}: user key {key!r} occurs {count} times, expected every key once")
    if empty := (torch.stack([part.lengths for part in parts]).sum(0) == 0).nonzero().flatten().tolist():
        named = _name_users([user_keys[user] for user in empty])
        where = " in any part" if len(parts) > 1 else ""
        raise InputError(f"{source}: {named} without items{where}, expected at least one item for every user")


def _name_users(keys: list[str], shown: int = 5) -> str:
    """A count and the first few keys for a message: `3 users ('a', 'b', 'c')`."""
    names = ", ".join(repr(key) for key in keys[:shown]) + (", …" if len(keys) > shown else "")
    return f"{len(keys)} user{'s' if len(keys) > 1 else ''} ({names})"
