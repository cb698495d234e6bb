"""Which of a user's interactions train, validate and test."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

from padrec.catalog import InputError, PositiveFloat, PositiveInt, check_arguments
from padrec.data.preparation.engine import rows

if TYPE_CHECKING:
    import ibis

PARTS = ("train", "validation", "test")


class SplitRule(Protocol):
    """Deals interactions out to training, validation and test."""

    @property
    def least_interactions(self) -> int:
        """Interactions that every user must have."""

    def settings(self) -> dict[str, object]:
        """The arguments, as JSON values."""
        return dict(vars(self))

    def part(self, log: "ibis.Table") -> "ibis.Column":
        """The part of each interaction, an index into `PARTS`; a part that is left empty is an InputError.

        The log has the kept interactions: `user`, `item`, `time` in microseconds since 1970, and `position`, which
        orders interactions at the same time; all int64.
        """


class LeaveLastOut(SplitRule):
    """Each user's last `count` interactions test, the `count` before them validate, the others train.

    With a count of 1 this is leave-one-out.

    Args:
        count: interactions of each user in validation and in the test, at least 1.
    """

    def __init__(self, count: PositiveInt = 1) -> None:
        check_arguments(LeaveLastOut, locals())
        self.count = count

    @property
    def least_interactions(self) -> int:
        """One to train on beside those held back."""
        return 2 * self.count + 1

    def part(self, log: "ibis.Table") -> "ibis.Column":
        """Count each user's interactions from the last."""
        import ibis

        latest_first = [log.time.desc(), log.position.desc()]
        from_end = ibis.row_number().over(group_by=log.user, order_by=latest_first)
        return ibis.cases((from_end >= 2 * self.count, 0), (from_end >= self.count, 1), else_=2)


class TimeSplit(SplitRule):
    """The earliest interactions of all users train, later ones validate, the latest test.

    Interactions at the same time are in the same part, so that nothing is trained on that is as late as what is
    predicted; parts can therefore be a little smaller or larger than requested. Users may have no interactions in a
    part, and items may first occur in the test.

    Args:
        ratios: shares of training, validation and test; each above 0, together 1.
    """

    def __init__(self, ratios: Sequence[PositiveFloat] = (0.8, 0.1, 0.1)) -> None:
        check_arguments(TimeSplit, locals())
        if len(ratios) != len(PARTS) or not math.isclose(sum(ratios), 1.0):
            raise InputError(f"ratios are {list(ratios)}, expected three with the sum 1: {', '.join(PARTS)}")
        self.ratios = tuple(float(ratio) for ratio in ratios)

    @property
    def least_interactions(self) -> int:
        """One: users may lack a part."""
        return 1

    def part(self, log: "ibis.Table") -> "ibis.Column":
        """Find the first times of validation and test; too many interactions at the same time are an InputError."""
        import ibis

        total = int(log.count().to_pyarrow().as_py())
        ranks = [min(round(share * total), total - 1) for share in list(accumulate(self.ratios))[:-1]]
        counts = log.group_by("time").agg(n=log.count())
        # Interactions up to each time: the time at rank r is the first with more than r.
        sums = counts.mutate(until=counts.n.sum().over(ibis.cumulative_window(order_by=counts.time)))
        at_ranks = {f"start_{i}": sums.time.min(where=sums.until > rank) for i, rank in enumerate(ranks)}
        (found,) = rows(sums.agg(earliest=sums.time.min(), **at_ranks))
        for part, before, start in zip(PARTS, found.values(), list(found.values())[1:], strict=False):
            if before == start:
                problem = f"too many of the {total} are at the same time, expected different times"
                raise InputError(f"ratios {list(self.ratios)} leave no interactions for {part}: {problem}")
        return ibis.cases((log.time < found["start_0"], 0), (log.time < found["start_1"], 1), else_=2)
