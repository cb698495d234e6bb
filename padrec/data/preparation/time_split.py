"""A split at two points in time, the same for all users."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from padrec.catalog import InputError
from padrec.data.preparation.split_rule import PARTS, Partition, SplitRule, Times

_BINS = 1 << 16


class TimeSplit(SplitRule):
    """The earliest interactions of all users train, later ones validate, the latest test.

    Interactions at the same time lie in the same part, so that nothing is trained on that is as late as what is
    predicted; parts can therefore be a little smaller or larger than asked for. Users may have no interactions in a
    part, and items may first occur in the test.

    Args:
        ratios: shares of training, validation and test; each above 0, together 1.

    Raises:
        InputError: not three ratios, one of them not above 0, or another sum.
    """

    def __init__(self, ratios: Sequence[float] = (0.8, 0.1, 0.1)) -> None:
        if len(ratios) != len(PARTS) or min(ratios) <= 0 or not math.isclose(sum(ratios), 1.0):
            raise InputError(f"ratios are {list(ratios)}, expected three above 0 with the sum 1: {', '.join(PARTS)}")
        self.ratios = tuple(float(ratio) for ratio in ratios)

    @property
    def least_interactions(self) -> int:
        """Any user will do."""
        return 1

    def settings(self) -> dict[str, object]:
        """The ratios."""
        return {"ratios": list(self.ratios)}

    def partition(self, times: Times) -> Partition:
        """Find the first times of validation and test.

        Raises:
            InputError: a part is empty, as too many interactions are at the same time.
        """
        total = sum(len(piece) for piece in times())
        starts = [time_at_rank(times, min(round(share * total), total - 1)) for share in np.cumsum(self.ratios[:-1])]
        earliest = min(int(piece.min()) for piece in times() if len(piece))
        for part, before, start in zip(PARTS, [earliest, *starts], starts, strict=False):
            if before == start:
                raise InputError(
                    f"ratios {list(self.ratios)} leave no interactions for {part}: too many of the {total} are at the "
                    "same time, expected different times"
                )
        boundaries = np.array(starts)
        return lambda offsets, values: np.searchsorted(boundaries, values, side="right").astype(np.int8)


def time_at_rank(times: Times, rank: int) -> int:
    """The time that would stand at a place if all times were sorted, without holding them all.

    Each pass counts the times in equal bins and goes on inside the bin that has the place.

    Args:
        times: all times.
        rank: the place, from 0.
    """
    low = min(int(piece.min()) for piece in times() if len(piece))
    high = max(int(piece.max()) for piece in times() if len(piece))
    while low < high:
        width = (high - low) // _BINS + 1
        below, counts = 0, np.zeros(_BINS, dtype=np.int64)
        for piece in times():
            below += int((piece < low).sum())
            inside: NDArray[np.int64] = piece[(piece >= low) & (piece <= high)]
            counts += np.bincount((inside - low) // width, minlength=_BINS)
        place = int(np.searchsorted(below + counts.cumsum(), rank, side="right"))
        low, high = low + place * width, min(low + (place + 1) * width - 1, high)
    return low
