"""How the attention of a pass is divided among programs."""

import pytest

from padrec.decoding.attention_tiles import attention_tile


@pytest.mark.parametrize("n_queries", [1, 2, 20, 256])
@pytest.mark.parametrize("size", [16, 64, 256])
@pytest.mark.parametrize("itemsize", [2, 4])
def test_keys_and_values_that_are_under_way_fit_into_memory(n_queries: int, size: int, itemsize: int) -> None:
    tile = attention_tile(n_queries, size, itemsize)
    assert (tile.queries + 2 * (tile.stages - 1) * tile.columns) * size * itemsize <= 200 * 1024
    # As matrix instructions take them.
    assert tile.queries >= 16
    assert tile.queries & (tile.queries - 1) == 0
    assert tile.columns & (tile.columns - 1) == 0
