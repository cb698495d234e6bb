"""Selection, by the kernel and in plain PyTorch, against a plain sort."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from padrec.decoding.beam.selection import best_in_order
from padrec.decoding.beam.triton_selection import best_in_order_by_kernel
from tests.kernel_device import DEVICE

# Few values, so that many are equal, minus infinity among them.
_VALUES = st.sampled_from([-torch.inf, -3.5, -1.0, -0.0, 0.0, 2.0, 7.5])


def expected(values: Tensor, count: int) -> list[list[int]]:
    rows = []
    for row in values.tolist():
        kept = sorted(range(len(row)), key=lambda place: (-row[place], place))[:count]
        rows.append(sorted(kept, key=lambda place: (row[place] == -torch.inf, place)))
    return rows


@st.composite
def rows_of_few_values(draw: st.DrawFn) -> list[list[float]]:
    n = draw(st.integers(1, 40))
    return draw(st.lists(st.lists(_VALUES, min_size=n, max_size=n), min_size=1, max_size=3))


@settings(max_examples=30)
@given(rows=rows_of_few_values(), data=st.data())
def test_the_best_are_kept_in_order_and_of_equal_ones_the_first(rows: list[list[float]], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(rows[0])))
    for dtype in (torch.float32, torch.float64):
        values = torch.tensor(rows, dtype=dtype)
        assert best_in_order(values, count).tolist() == expected(values, count)
        assert best_in_order_by_kernel(values.to(DEVICE), count).tolist() == expected(values, count)


@pytest.mark.parametrize(("n", "count"), [(91, 40), (1590, 10), (9216, 256)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_kernel_keeps_what_plain_pytorch_keeps(n: int, count: int, dtype: torch.dtype) -> None:
    values = 5 * torch.randn(4, n, generator=torch.Generator().manual_seed(n), dtype=dtype)
    values[1] = values[1].round()
    values[2, 7:] = -torch.inf
    values[3] *= 1e30
    assert torch.equal(best_in_order_by_kernel(values.to(DEVICE), count).cpu(), best_in_order(values, count))
