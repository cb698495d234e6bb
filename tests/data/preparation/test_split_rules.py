from collections.abc import Sequence
from typing import Any

import ibis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from padrec.catalog import InputError
from padrec.data import LeaveLastOut, SplitRule, TimeSplit


def parts(split: SplitRule, users: Sequence[int], times: Sequence[int]) -> list[int]:
    """The part of each interaction, in the order given."""
    log = ibis.memtable({"user": users, "item": users, "time": times, "position": range(len(times))})
    dealt = log.select("position", part=split.part(log)).order_by("position")
    found: list[Any] = dealt.to_pyarrow()["part"].to_pylist()
    return found


@pytest.mark.parametrize(("count", "expected"), [(1, [0, 0, 0, 0, 1, 2, 0, 1, 2]), (2, [0, 0, 1, 1, 2, 2])])
def test_each_users_last_interactions_are_left_out(count: int, expected: list[int]) -> None:
    users = [0] * 6 + [1] * (len(expected) - 6)
    assert parts(LeaveLastOut(count), users, [0] * len(expected)) == expected


def test_a_count_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="count is 0, expected at least 1"):
        LeaveLastOut(0)


def test_parts_have_the_sizes_requested() -> None:
    times = [7 * place % 1000 for place in range(1000)]
    dealt = parts(TimeSplit((0.7, 0.2, 0.1)), [0] * 1000, times)
    assert [dealt.count(part) for part in range(3)] == [700, 200, 100]
    by_part = [[time for time, found in zip(times, dealt, strict=True) if found == part] for part in range(3)]
    assert max(by_part[0]) < min(by_part[1]) <= max(by_part[1]) < min(by_part[2])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 30) | st.integers(-(1 << 60), 1 << 60), min_size=1, max_size=60))
def test_the_same_time_is_in_one_part_and_no_part_is_empty(times: list[int]) -> None:
    ordered = sorted(times)
    starts = [ordered[min(round(share * len(times)), len(times) - 1)] for share in (0.8, 0.9)]
    expected = [sum(time >= start for start in starts) for time in times]
    if set(expected) == {0, 1, 2}:
        assert parts(TimeSplit(), [0] * len(times), times) == expected
    else:
        with pytest.raises(InputError, match="leave no interactions for"):
            parts(TimeSplit(), [0] * len(times), times)


@pytest.mark.parametrize("times", [[5] * 20, [1, 2], [1] * 9 + [2] * 11])
def test_a_part_without_interactions_is_refused(times: list[int]) -> None:
    with pytest.raises(InputError, match="leave no interactions for"):
        parts(TimeSplit(), [0] * len(times), times)


@pytest.mark.parametrize("ratios", [(0.8, 0.2), (0.9, 0.2, 0.1), (1.0, 0.0, 0.0), (1.1, -0.2, 0.1)])
def test_wrong_ratios_are_refused(ratios: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match=r"ratios (is|are) .*, expected (three with the sum 1|more than 0 each)"):
        TimeSplit(ratios)
