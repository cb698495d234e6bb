import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from padrec.catalog.node_table import NodeTable


@given(st.dictionaries(st.integers(0, 2**40), st.integers(0, 999), min_size=1, max_size=60), st.data())
def test_numbers_are_found_as_in_a_dict(numbers: dict[int, int], data: st.DataObject) -> None:
    table = NodeTable(torch.tensor(list(numbers)), torch.tensor(list(numbers.values())), missing=1000)
    asked = [*numbers, *data.draw(st.lists(st.integers(0, 2**40), max_size=20))]
    expected = [numbers.get(key, 1000) for key in asked]
    assert table.find(torch.tensor(asked)).tolist() == expected
    assert table.find(torch.tensor(asked).expand(2, 1, -1)).tolist() == [[expected], [expected]]
    assert 1 <= table.most <= 8


@pytest.mark.parametrize("step", [1, 1024, 2**20, 2**33 + 1])
def test_buckets_stay_small_whatever_the_keys_have_in_common(step: int) -> None:
    keys = torch.arange(50_000) * step
    table = NodeTable(keys, torch.arange(50_000), missing=50_000)
    assert torch.equal(table.find(keys), torch.arange(50_000))
    assert table.most <= 8
    assert table.n_bytes < 50_000 * 8 * 6
