"""How the attention of a pass is divided among programs."""

import pytest

from padrec.decoding.layers.tiles import attention_tile, heads_together


@pytest.mark.parametrize("n_queries", [1, 2, 20, 256])
@pytest.mark.parametrize("n_heads", [1, 8, 256])
@pytest.mark.parametrize("size", [16, 64, 256])
@pytest.mark.parametrize("itemsize", [2, 4])
def test_keys_and_values_that_are_under_way_fit_into_memory(
    n_queries: int, n_heads: int, size: int, itemsize: int
) -> None:
    tile = attention_tile(n_queries, n_heads, size, itemsize)
    assert (tile.queries + 2 * (tile.stages - 1) * tile.columns) * size * itemsize <= 200 * 1024
    # As matrix instructions take them.
    assert tile.queries >= 16
    assert tile.queries & (tile.queries - 1) == 0
    assert tile.columns & (tile.columns - 1) == 0


@pytest.mark.parametrize(("n_tokens", "together"), [(1, 1), (8, 1), (32, 2), (64, 4), (384, 32), (4096, 32)])
def test_a_program_rotates_more_heads_where_there_are_many_tokens(n_tokens: int, together: int) -> None:
    assert heads_together(n_tokens, 32) == together


def test_a_program_rotates_no_more_heads_than_there_are() -> None:
    assert heads_together(4096, 9) == 16, "a power of two, the rest masked"
