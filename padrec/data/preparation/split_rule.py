"""Which of a user's interactions train, validate and test."""

from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

PARTS = ("train", "validation", "test")

# Gives the part of each interaction, an index into `PARTS`, int8 `[n]`. Takes the interactions of whole users, user by
# user in time order: where each user's rows start and the last ends, int64 `[users + 1]`, and the times, int64 `[n]`.
Partition = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.int8]]
# All times of the log, int64 `[*]` piece by piece, as often as it is called.
Times = Callable[[], Iterable[NDArray[np.int64]]]


class SplitRule(Protocol):
    """Deals interactions out to training, validation and test."""

    @property
    def least_interactions(self) -> int:
        """Interactions that every user must have."""
        ...

    def settings(self) -> dict[str, object]:
        """The arguments, as JSON values."""
        ...

    def partition(self, times: Times) -> Partition:
        """Look at the log as a whole, to deal it out then user by user.

        Raises:
            InputError: the rule leaves a part empty.
        """
        ...
