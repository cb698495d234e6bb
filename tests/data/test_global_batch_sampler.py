import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from padrec.catalog import InputError
from padrec.data.global_batch_sampler import GlobalBatchSampler
from padrec.data.window_rows import FILLER_ROW

lengths_strategy = st.lists(st.integers(1, 30), min_size=1, max_size=300).map(torch.tensor)


def batches(lengths: torch.Tensor, batch_size: int, n_processes: int, epoch: int = 0) -> list[list[list[int]]]:
    """The batches of every process."""
    found = []
    for process in range(n_processes):
        sampler = GlobalBatchSampler(lengths, batch_size, n_processes, process, seed=5)
        sampler.set_epoch(epoch)
        found.append(list(sampler))
        assert len(found[-1]) == len(sampler)
    return found


@given(lengths_strategy, st.integers(3, 12), st.integers(0, 3))
def test_any_number_of_processes_sees_the_same_global_batches(
    lengths: torch.Tensor, batch_size: int, epoch: int
) -> None:
    (alone,) = batches(lengths, batch_size, 1, epoch)
    for n_processes in (2, 3):
        shared = batches(lengths, batch_size, n_processes, epoch)
        for number, batch in enumerate(alone):
            parts = [process[number] for process in shared]
            assert all(parts)
            rows = [row for part in parts for row in part if row != FILLER_ROW]
            assert sorted(rows) == sorted(batch)
            assert all(part == [FILLER_ROW] for part in parts if FILLER_ROW in part)


@given(lengths_strategy, st.integers(1, 12))
def test_every_row_comes_once_and_only_the_last_batch_is_smaller(lengths: torch.Tensor, batch_size: int) -> None:
    (found,) = batches(lengths, batch_size, 1)
    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    assert all(len(batch) == batch_size for batch in found[:-1])


def test_epochs_differ_and_repeat_exactly() -> None:
    lengths = torch.arange(100) % 7
    assert batches(lengths, 8, 1, epoch=1) == batches(lengths, 8, 1, epoch=1)
    assert batches(lengths, 8, 1, epoch=1) != batches(lengths, 8, 1, epoch=2)


def test_rows_of_similar_length_share_a_batch() -> None:
    lengths = torch.randint(1, 31, (2000,), generator=torch.Generator().manual_seed(0))
    (found,) = batches(lengths, 50, 1)
    spread = [int(lengths[batch].max() - lengths[batch].min()) for batch in found]
    assert sum(spread) / len(spread) < 3


def test_more_processes_than_rows_in_a_batch_are_refused() -> None:
    with pytest.raises(InputError, match="batch_size is 2 on 3 processes"):
        GlobalBatchSampler(torch.ones(10), 2, n_processes=3)
