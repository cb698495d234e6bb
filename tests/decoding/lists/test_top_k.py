"""The largest values of short rows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from padrec.decoding.lists.top_k import top_k
from tests.kernel_device import DEVICE, needs_gpu


@pytest.mark.parametrize("shape", [(3, 5), (2, 4, 100), (7,), (1, 1)])
def test_the_largest_values_in_descending_order(shape: tuple[int, ...]) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    k = min(3, shape[-1])
    best, indices = top_k(values, k)
    rows = [sorted(enumerate(row), key=lambda pair: -pair[1])[:k] for row in values.reshape(-1, shape[-1]).tolist()]
    expected = [[at for at, _ in row] for row in rows]
    assert indices.reshape(-1, k).tolist() == expected
    assert torch.equal(best, values.gather(-1, indices))


def assert_largest(found: tuple[torch.Tensor, torch.Tensor], values: torch.Tensor, k: int) -> None:
    best, indices = found
    assert torch.equal(best, values.topk(k).values)
    assert torch.equal(best, values.gather(-1, indices))
    assert all(len(set(row)) == k for row in indices.reshape(-1, k).tolist()), "no value is taken twice"


@settings(max_examples=20)
@given(
    values=st.lists(
        st.sampled_from([0.0, -0.0, 1.5, -2.0, 3e38, -3e38, 1e-42, float("-inf")]), min_size=1, max_size=20
    ),
    rows=st.integers(1, 3),
    data=st.data(),
)
def test_a_kernel_takes_the_first_of_equal_values(values: list[float], rows: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values)))
    given_rows = torch.tensor([values[at:] + values[:at] for at in range(rows)])
    best, indices = torch.ops.padrec.short_top_k(given_rows.to(DEVICE), k)
    assert_largest((best.cpu(), indices.cpu()), given_rows, k)
    # Zeros of both signs are equal to PyTorch, but not to the kernel, which takes the positive one first.
    for row, found in zip(given_rows.tolist(), indices.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda at: (-row[at], str(row[at]) == "-0.0", at))
        assert found == order[:k]


@pytest.mark.parametrize(("shape", "k"), [((3, 5), 5), ((2, 10, 1200), 10), ((1, 100), 7), ((4, 8192), 32)])
def test_a_kernel_finds_what_torch_finds_in_rows_of_any_length(shape: tuple[int, ...], k: int) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(DEVICE).flatten(0, -2)
    values[..., k - 1 :] = -torch.inf  # fewer finite values than are asked for
    assert_largest(torch.ops.padrec.short_top_k(values, k), values, k)


@needs_gpu
@pytest.mark.parametrize(("shape", "k"), [((3, 5), 5), ((2, 10, 1200), 10), ((1, 100), 7), ((4, 8192), 32)])
@pytest.mark.parametrize("compiled", [False, True])
def test_the_largest_values_of_a_row_on_a_gpu(shape: tuple[int, ...], k: int, compiled: bool) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    # Fewer finite values than are asked for, equal ones, and zeros of both signs.
    values[..., k - 1 :] = -torch.inf
    values[0, ..., :2] = torch.tensor([0.0, -0.0])
    assert_largest((torch.compile(top_k, dynamic=False) if compiled else top_k)(values, k), values, k)
