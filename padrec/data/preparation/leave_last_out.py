"""Every user's last interactions are held back."""

import numpy as np
from numpy.typing import NDArray

from padrec.catalog import InputError
from padrec.data.preparation.split_rule import Partition, SplitRule, Times


class LeaveLastOut(SplitRule):
    """Each user's last `count` interactions test, the `count` before them validate, the others train.

    With a count of 1 this is leave-one-out.

    Args:
        count: interactions of each user in validation and in the test, at least 1.

    Raises:
        InputError: a count below 1.
    """

    def __init__(self, count: int = 1) -> None:
        if count < 1:
            raise InputError(f"count is {count}, expected at least 1 interaction to leave out")
        self.count = count

    @property
    def least_interactions(self) -> int:
        """One to train on beside those held back."""
        return 2 * self.count + 1

    def settings(self) -> dict[str, object]:
        """The count."""
        return {"count": self.count}

    def partition(self, times: Times) -> Partition:
        """Needs nothing of the log as a whole."""
        return self._parts

    def _parts(self, offsets: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.int8]:
        ends = np.repeat(offsets[1:], np.diff(offsets))
        from_end = ends - np.arange(len(times))  # 1 for a user's last interaction
        return np.where(from_end > 2 * self.count, 0, np.where(from_end > self.count, 1, 2)).astype(np.int8)
