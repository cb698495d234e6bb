import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from padrec.data.preparation.time_order import time_order

ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(-3, 3)), max_size=30)


@pytest.mark.parametrize("deduplicate", [False, True])
@given(rows=ROWS)
def test_rows_are_sorted_by_user_and_time_with_stable_ties(deduplicate: bool, rows: list[tuple[int, int, int]]) -> None:
    expected: list[int] = []
    seen: set[tuple[int, int]] = set()
    for row in sorted(range(len(rows)), key=lambda row: (rows[row][0], rows[row][2], row)):
        if not deduplicate or rows[row][:2] not in seen:
            expected.append(row)
        seen.add(rows[row][:2])
    users, items, times = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    found = time_order(users.astype(np.int32), items.astype(np.int32), times, deduplicate)
    assert found.tolist() == expected
