"""The largest values of short rows."""

import pytest
import torch

from padrec.decoding.lists.top_k import top_k


@pytest.mark.parametrize("shape", [(3, 5), (2, 4, 100), (7,), (1, 1)])
def test_the_largest_values_in_descending_order(shape: tuple[int, ...]) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    k = min(3, shape[-1])
    best, indices = top_k(values, k)
    rows = [sorted(enumerate(row), key=lambda pair: -pair[1])[:k] for row in values.reshape(-1, shape[-1]).tolist()]
    expected = [[at for at, _ in row] for row in rows]
    assert indices.reshape(-1, k).tolist() == expected
    assert torch.equal(best, values.gather(-1, indices))
