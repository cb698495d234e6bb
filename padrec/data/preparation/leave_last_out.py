"""Every user's last interactions are held back."""

from typing import TYPE_CHECKING

from padrec.catalog import PositiveInt, check_arguments
from padrec.data.preparation.split_rule import SplitRule

if TYPE_CHECKING:
    import ibis


class LeaveLastOut(SplitRule):
    """Each user's last `count` interactions test, the `count` before them validate, the others train.

    With a count of 1 this is leave-one-out.

    Args:
        count: interactions of each user in validation and in the test, at least 1.

    Raises:
        InputError: a count below 1.
    """

    def __init__(self, count: PositiveInt = 1) -> None:
        check_arguments(LeaveLastOut, locals())
        self.count = count

    @property
    def least_interactions(self) -> int:
        """One to train on beside those held back."""
        return 2 * self.count + 1

    def settings(self) -> dict[str, object]:
        """The count."""
        return {"count": self.count}

    def part(self, log: "ibis.Table") -> "ibis.Column":
        """Count each user's interactions from the last."""
        import ibis

        latest_first = [log.time.desc(), log.position.desc()]
        from_end = ibis.row_number().over(group_by=log.user, order_by=latest_first)
        return ibis.cases((from_end >= 2 * self.count, 0), (from_end >= self.count, 1), else_=2)
