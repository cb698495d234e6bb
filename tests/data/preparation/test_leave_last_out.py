import numpy as np
import pytest

from padrec.catalog import InputError
from padrec.data import LeaveLastOut


@pytest.mark.parametrize(("count", "expected"), [(1, [0, 0, 0, 0, 1, 2, 0, 1, 2]), (2, [0, 0, 1, 1, 2, 2])])
def test_each_users_last_interactions_are_left_out(count: int, expected: list[int]) -> None:
    times = np.zeros(len(expected), dtype=np.int64)
    offsets = np.array([0, 6, 9][: 4 - count])
    partition = LeaveLastOut(count).partition(lambda: [times])
    assert partition(offsets, times).tolist() == expected


def test_a_count_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="count is 0, expected at least 1"):
        LeaveLastOut(0)
