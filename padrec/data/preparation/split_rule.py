"""Which of a user's interactions train, validate and test."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import ibis

PARTS = ("train", "validation", "test")


class SplitRule(Protocol):
    """Deals interactions out to training, validation and test."""

    @property
    def least_interactions(self) -> int:
        """Interactions that every user must have."""
        ...

    def settings(self) -> dict[str, object]:
        """The arguments, as JSON values."""
        ...

    def part(self, log: "ibis.Table") -> "ibis.Column":
        """The part of each interaction, an index into `PARTS`.

        Args:
            log: the kept interactions: `user`, `item`, `time` in microseconds since 1970, and `position`, which orders
                interactions at the same time; all int64.

        Raises:
            InputError: the rule leaves a part empty.
        """
        ...
