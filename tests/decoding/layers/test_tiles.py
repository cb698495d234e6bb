"""How linear maps of several tokens and attention are divided among programs."""

import pytest

from padrec.decoding.layers.tiles import (
    HELD_STEP,
    HELD_WARPS,
    MOST_TOKENS,
    HeldTile,
    LinearTile,
    attention_tile,
    heads_together,
    linear_tile,
    streamed_tile,
)

_REGISTERS, _PROGRAMS = 65536, 132
_MAPS = [(2048, 1024, False), (1024, 1024, False), (3072, 1024, True), (1024, 3072, False)]


@pytest.mark.parametrize("n_tokens", [2, 8, 9, 16])
@pytest.mark.parametrize(("n_out", "n_in", "gated"), _MAPS)
def test_weights_of_few_tokens_are_held_by_programs_that_are_all_resident(
    n_tokens: int, n_out: int, n_in: int, gated: bool
) -> None:
    tile = linear_tile(n_tokens, n_out, n_in, gated, 2)
    assert isinstance(tile, HeldTile)
    assert tile.registers is not None
    assert 1 <= tile.held <= n_in // (HELD_WARPS * HELD_STEP)
    assert tile.tokens >= n_tokens
    programs = -(-n_out // tile.outputs)
    resident = _REGISTERS // (tile.registers * HELD_WARPS * 32)
    assert programs <= resident * _PROGRAMS


@pytest.mark.parametrize(
    ("n_tokens", "n_out", "n_in", "gated", "itemsize"),
    [
        (2, 1024, 1024, False, 4),
        (2, 1024, 200, False, 2),
        (2, 1024, 8192, False, 2),
        (2, 16384, 1024, False, 2),
        (65, 1024, 1024, False, 2),
        (33, 2048, 1024, False, 2),
        (33, 1024, 3072, False, 2),
        (33, 3072, 1024, True, 2),
        (8, 8192, 1024, True, 2),
    ],
    ids=[
        "float32",
        "odd size",
        "many inputs",
        "many outputs",
        "many tokens",
        "halves of many outputs",
        "of many inputs",
        "many gated tokens",
        "wide gate",
    ],
)
def test_other_maps_are_streamed(n_tokens: int, n_out: int, n_in: int, gated: bool, itemsize: int) -> None:
    tile = linear_tile(n_tokens, n_out, n_in, gated, itemsize)
    assert isinstance(tile, LinearTile)
    assert tile == streamed_tile(n_tokens, n_out, n_in, gated, itemsize)


@pytest.mark.parametrize("n_tokens", [17, 33, 64])
def test_two_programs_share_more_tokens_whose_inputs_they_ask_for_at_once(n_tokens: int) -> None:
    tile = linear_tile(n_tokens, 1024, 1024, False, 2)
    assert isinstance(tile, HeldTile)
    assert n_tokens <= 2 * tile.tokens
    assert tile.batch == tile.held == 1024 // (HELD_WARPS * HELD_STEP)
    assert _PROGRAMS * tile.outputs >= 2 * 1024


@pytest.mark.parametrize("n_tokens", [2, 64, 128])
@pytest.mark.parametrize(("n_out", "n_in", "gated"), _MAPS)
def test_streams_of_wide_numbers_fit_into_memory(n_tokens: int, n_out: int, n_in: int, gated: bool) -> None:
    tile = streamed_tile(n_tokens, n_out, n_in, gated, 4)
    assert tile is not None
    rows = tile.tokens + tile.outputs * (2 if gated else 1)
    assert tile.stages * rows * tile.inputs * 4 <= 227 * 1024


@pytest.mark.parametrize(("n_out", "n_in", "gated"), _MAPS)
@pytest.mark.parametrize("itemsize", [2, 4])
def test_large_passes_are_left_to_the_vendor(n_out: int, n_in: int, gated: bool, itemsize: int) -> None:
    for choice in (linear_tile, streamed_tile):
        assert choice(MOST_TOKENS, n_out, n_in, gated, itemsize) is not None
        assert choice(MOST_TOKENS + 1, n_out, n_in, gated, itemsize) is None


@pytest.mark.parametrize("n_tokens", [2, 16, 64, 128])
@pytest.mark.parametrize("gated", [False, True])
def test_wide_maps_are_left_to_the_vendor(n_tokens: int, gated: bool) -> None:
    assert linear_tile(n_tokens, 2048, 2048, gated, 2) is None
    assert linear_tile(n_tokens, 2048, 2048, gated, 4) is not None
    assert streamed_tile(n_tokens, 2048, 2048, gated, 2) is not None


@pytest.mark.parametrize("n_queries", [1, 2, 20, 256, 2000])
@pytest.mark.parametrize("n_heads", [1, 8, 256])
@pytest.mark.parametrize("size", [16, 64, 128, 256])
@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("columns", [256, 8192])
def test_keys_and_values_that_are_under_way_fit_into_memory(
    n_queries: int, n_heads: int, size: int, itemsize: int, columns: int
) -> None:
    tile = attention_tile(n_queries, n_heads, size, itemsize, columns)
    assert (tile.queries + 2 * (tile.stages - 1) * tile.columns) * size * itemsize <= 200 * 1024
    # As matrix instructions take them.
    assert tile.queries >= 16
    assert tile.queries & (tile.queries - 1) == 0
    assert tile.columns & (tile.columns - 1) == 0


@pytest.mark.parametrize(
    ("n_queries", "n_heads", "columns", "splits"),
    [
        *((512, 8, 8192, 4), (512, 8, 2048, 1), (512, 32, 8192, 1)),
        *((2, 8, 8192, 4), (20, 8, 512, 4), (128, 8, 1024, 2), (20, 8, 32_768, 8)),
        *((2, 8, 256, 1), (40, 256, 8192, 1)),
    ],
)
def test_programs_share_long_columns_where_they_are_few(
    n_queries: int, n_heads: int, columns: int, splits: int
) -> None:
    assert attention_tile(n_queries, n_heads, 128, 2, columns).splits == splits


@pytest.mark.parametrize(("n_tokens", "together"), [(1, 1), (8, 1), (32, 2), (64, 4), (384, 32), (4096, 32)])
def test_a_program_rotates_more_heads_where_there_are_many_tokens(n_tokens: int, together: int) -> None:
    assert heads_together(n_tokens, 32) == together


def test_a_program_rotates_no_more_heads_than_there_are() -> None:
    assert heads_together(4096, 9) == 16, "a power of two, the rest masked"
