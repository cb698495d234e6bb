import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from padrec.catalog import InputError
from padrec.data import TimeSplit
from padrec.data.preparation.time_split import time_at_rank

OFFSETS = np.array([0])  # the split asks for no user's place


@given(
    pieces=st.lists(st.lists(st.integers(-(1 << 60), 1 << 60) | st.integers(0, 3)), min_size=1).filter(any),
    data=st.data(),
)
def test_the_time_at_a_rank_is_that_of_sorting(pieces: list[list[int]], data: st.DataObject) -> None:
    arrays = [np.array(piece, dtype=np.int64) for piece in pieces]
    everything = sorted(time for piece in pieces for time in piece)
    rank = data.draw(st.integers(0, len(everything) - 1))
    assert time_at_rank(lambda: arrays, rank) == everything[rank]


def test_parts_have_the_sizes_asked_for_across_pieces() -> None:
    times = np.random.default_rng(0).permutation(1000).astype(np.int64)
    pieces = [times[:100], times[100:100], times[100:]]
    partition = TimeSplit((0.7, 0.2, 0.1)).partition(lambda: pieces)
    dealt = np.concatenate([partition(OFFSETS, piece) for piece in pieces])
    assert np.bincount(dealt).tolist() == [700, 200, 100]
    assert times[dealt == 0].max() < times[dealt == 1].min() <= times[dealt == 1].max() < times[dealt == 2].min()


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60))
def test_the_same_time_lies_in_one_part_and_no_part_is_empty(times: list[int]) -> None:
    ordered = sorted(times)
    starts = [ordered[min(round(share * len(times)), len(times) - 1)] for share in (0.8, 0.9)]
    expected = [sum(time >= start for start in starts) for time in times]
    array = np.array(times, dtype=np.int64)
    if set(expected) == {0, 1, 2}:
        assert TimeSplit().partition(lambda: [array])(OFFSETS, array).tolist() == expected
    else:
        with pytest.raises(InputError, match="leave no interactions for"):
            TimeSplit().partition(lambda: [array])


@pytest.mark.parametrize("times", [[5] * 20, [1, 2], [1] * 9 + [2] * 11])
def test_a_part_without_interactions_is_refused(times: list[int]) -> None:
    with pytest.raises(InputError, match="leave no interactions for"):
        TimeSplit().partition(lambda: [np.array(times, dtype=np.int64)])


@pytest.mark.parametrize("ratios", [(0.8, 0.2), (0.9, 0.2, 0.1), (1.0, 0.0, 0.0), (1.1, -0.2, 0.1)])
def test_wrong_ratios_are_refused(ratios: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="expected three above 0 with the sum 1"):
        TimeSplit(ratios)
