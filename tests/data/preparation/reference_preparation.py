"""A plain reference of the preparation, on lists."""

from collections import Counter
from collections.abc import Mapping, Sequence

Event = tuple[str, str, int, float]


def reference_sequences(
    log: Sequence[Event], min_rating: float, deduplicate: bool, user_core: int, item_core: int
) -> Mapping[str, list[tuple[str, int]]]:
    """Items and times of each user that is left, in time order."""
    rows = sorted((event for event in log if event[3] >= min_rating), key=lambda event: event[2])  # stable
    pairs: list[tuple[str, str, int]] = []
    for user, item, time, _ in rows:
        if not deduplicate or all((user, item) != pair[:2] for pair in pairs):
            pairs.append((user, item, time))
    while True:
        users, items = Counter(pair[0] for pair in pairs), Counter(pair[1] for pair in pairs)
        kept = [pair for pair in pairs if users[pair[0]] >= user_core and items[pair[1]] >= item_core]
        if kept == pairs:
            break
        pairs = kept
    sequences: dict[str, list[tuple[str, int]]] = {}
    for user, item, time in pairs:
        sequences.setdefault(user, []).append((item, time))
    return sequences
