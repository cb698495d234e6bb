"""Interactions in the order of time."""

import numpy as np
from numpy.typing import NDArray


def time_order(
    users: NDArray[np.int32], items: NDArray[np.int32], times: NDArray[np.int64], deduplicate: bool
) -> NDArray[np.int64]:
    """Rows user by user, each user's by time; rows at the same time keep the order of the log.

    Args:
        users: number of each row's user, `[n]`.
        items: number of each row's item, `[n]`.
        times: `[n]`, any unit.
        deduplicate: keep of the rows with the same user and item the first in time order only.

    Returns:
        Row numbers in their new order, int64, at most `[n]`.
    """
    order: NDArray[np.int64] = np.lexsort((times, users))  # stable
    if not deduplicate or len(order) == 0:
        return order
    pairs = users[order].astype(np.int64) * (int(items.max()) + 1) + items[order]
    _, first = np.unique(pairs, return_index=True)
    kept: NDArray[np.int64] = order[np.sort(first)]
    return kept
