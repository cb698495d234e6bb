"""Which of a user's items train, validate and test."""

from dataclasses import dataclass
from typing import Literal

from padrec.catalog import InputError
from padrec.data.interactions import Interactions, check_user_keys, name_users
from padrec.data.item_sequences import ItemSequences

_LEAVE_ONE_OUT_ITEMS = 3


@dataclass(frozen=True)
class Split:
    """Every user's items in three parts, each in time order; a part may be empty for a user.

    A recommendation for validation has seen the training items, one for testing the training and validation items.
    The ground truth is all items of the user's part: one under leave-one-out, any number under a split by time.

    Attributes:
        user_keys: the users' own keys, `[n_users]`, all different.
        train: item indices to train on, one row per user.
        validation: ground truth of validation, one row per user.
        test: ground truth of the test, one row per user.
        source: where the split was read from, named in errors.

    Raises:
        InputError: no users, a duplicate user key, parts of different users, or a user without any item.
    """

    user_keys: tuple[str, ...]
    train: ItemSequences
    validation: ItemSequences
    test: ItemSequences
    source: str = "split"

    def __post_init__(self) -> None:
        for part in (self.train, self.validation, self.test):
            check_user_keys(self.user_keys, len(part), self.source)
        total = self.train.lengths + self.validation.lengths + self.test.lengths
        empty = (total == 0).nonzero().flatten().tolist()
        if empty:
            named = name_users([self.user_keys[user] for user in empty])
            raise InputError(f"{self.source}: {named} without items in any part, expected at least one item")

    @property
    def test_history(self) -> ItemSequences:
        """What a recommendation for the test has seen: training items, then validation items."""
        return self.train.followed_by(self.validation)


def leave_one_out(interactions: Interactions, short_users: Literal["error", "drop"] = "error") -> Split:
    """Each user's last item tests, the last but one validates, the others train.

    Args:
        interactions: whole sequences.
        short_users: what to do with users of fewer than three items: refuse the data, or leave those users out.

    Raises:
        InputError: a user with fewer than three items, unless they are dropped; or none left.
    """
    sequences = interactions.sequences
    enough = sequences.lengths >= _LEAVE_ONE_OUT_ITEMS
    rows = enough.nonzero().flatten()
    if len(rows) < len(sequences):
        short = [interactions.user_keys[user] for user in (~enough).nonzero().flatten().tolist()]
        found = f"{interactions.source}: {name_users(short)} with fewer than {_LEAVE_ONE_OUT_ITEMS} items"
        if short_users == "error":
            raise InputError(
                f"{found}, expected at least one item each to train, validate and test; "
                "short_users: drop leaves such users out"
            )
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
