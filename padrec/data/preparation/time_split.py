"""A split at two points in time, the same for all users."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from padrec.catalog import InputError, PositiveFloat, check_arguments
from padrec.data.preparation.engine import rows
from padrec.data.preparation.split_rule import PARTS, SplitRule

if TYPE_CHECKING:
    import ibis


class TimeSplit(SplitRule):
    """The earliest interactions of all users train, later ones validate, the latest test.

    Interactions at the same time are in the same part, so that nothing is trained on that is as late as what is
    predicted; parts can therefore be a little smaller or larger than requested. Users may have no interactions in a
    part, and items may first occur in the test.

    Args:
        ratios: shares of training, validation and test; each above 0, together 1.

    Raises:
        InputError: not three ratios, one of them not above 0, or another sum.
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

    def settings(self) -> dict[str, object]:
        """The ratios."""
        return {"ratios": list(self.ratios)}

    def part(self, log: "ibis.Table") -> "ibis.Column":
        """Find the first times of validation and test.

        Raises:
            InputError: a part is empty, as too many interactions are at the same time.
        """
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
                raise InputError(
                    f"ratios {list(self.ratios)} leave no interactions for {part}: too many of the {total} are at the "
                    "same time, expected different times"
                )
        return ibis.cases((log.time < found["start_0"], 0), (log.time < found["start_1"], 1), else_=2)
