"""Linear maps, and the stream between them, by kernels against plain PyTorch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from padrec.decoding.layers.layer_operations import Head, LayerOperations, ResidualStream
from padrec.decoding.layers.tiles import HELD_STEP, HELD_WARPS, HeldTile, LinearTile, Tile, linear_tile, streamed_tile
from padrec.decoding.layers.triton_operations import TritonOperations
from tests.decoding.layers.exact_numbers import PLAIN, assert_close, exact, exact_norm, random_norm, random_tensor
from tests.kernel_device import DEVICE, DTYPES, ON_GPU, needs_early_launch, needs_gpu

_WIDTHS = [1, 2, 7, 16, 17, 64, 65, 128, 129, 200] if ON_GPU else [1, 2, 17]


def held_tile(n_tokens: int, n_out: int, n_in: int, gated: bool, itemsize: int) -> Tile | None:
    """Weights are held, on a CPU also in float32: no register limits it."""
    if ON_GPU or n_in % (HELD_WARPS * HELD_STEP):
        return linear_tile(n_tokens, n_out, n_in, gated, itemsize)
    return HeldTile(8 if n_tokens <= 8 else 16, 16, held=1, batch=1)


def split_tile(n_tokens: int, n_out: int, n_in: int, gated: bool, itemsize: int) -> LinearTile:
    """Programs share the inputs of all maps that are sums."""
    return LinearTile(64, 32, 128 // itemsize, 4, 3, 1 if gated else 4)


def mixed_tile(n_tokens: int, n_out: int, n_in: int, gated: bool, itemsize: int) -> LinearTile | None:
    """The vendor's products stand between maps by kernels, whatever the number of tokens."""
    return None if gated or n_out > 64 or n_out == 40 else split_tile(n_tokens, n_out, n_in, gated, itemsize)


_TILES = {"streamed": streamed_tile, "held": held_tile, "split": split_tile, "mixed": mixed_tile}
_launched_early = pytest.mark.skipif(ON_GPU, reason="on a GPU these tiles are tested with early launch")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((False, "streamed"), id="in turn, streamed"),
        *(pytest.param((False, tiles), marks=_launched_early, id=f"in turn, {tiles}") for tiles in list(_TILES)[1:]),
        *(pytest.param((True, tiles), marks=needs_early_launch, id=f"early, {tiles}") for tiles in _TILES),
    ],
)
def tiled(request: pytest.FixtureRequest) -> LayerOperations:
    """Operations whose linear maps are divided among programs in one of several ways."""
    early, tiles = request.param
    return TritonOperations(early, _TILES[tiles])


_SIZES = pytest.mark.parametrize(
    ("n_in", "n_out"),
    [
        (200, 100),
        (512, 48),
        *(pytest.param(*size, marks=needs_gpu) for size in [(64, 48), (512, 100), (1024, 2304), (3072, 1024)]),
    ],
)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@_SIZES
@pytest.mark.parametrize("flags", ["norm bias", "norm gate", "bias", ""])
def test_the_linear_maps_of_a_layer(
    tiled: LayerOperations, dtype: torch.dtype, n_in: int, n_out: int, flags: str
) -> None:
    for n_tokens in _WIDTHS:
        assert_maps(tiled, n_tokens, n_in, n_out, flags, dtype)


def assert_maps(
    operations: LayerOperations, n_tokens: int, n_in: int, n_out: int, flags: str, dtype: torch.dtype
) -> None:
    gated = "gate" in flags
    rows = 2 * n_out if gated else n_out
    x = random_tensor(n_tokens, n_in, dtype=dtype, seed=0)
    weight = random_tensor(rows, n_in, dtype=dtype, seed=1) / n_in**0.5
    bias = random_tensor(rows, dtype=dtype, seed=2) if "bias" in flags else None
    norm = random_norm(n_in, dtype, seed=3) if "norm" in flags else None
    last = n_tokens % 2 == 0
    found = operations.linear(ResidualStream(x, norm), weight, bias, gated, last)
    assert found.dtype == (torch.float32 if last else dtype)
    expected = PLAIN.linear(ResidualStream(x.double(), exact_norm(norm)), weight.double(), exact(bias), gated)
    assert_close(found.to(dtype), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n_in", "flags"), [(1100, "norm gate"), (4200, "norm bias")])
def test_one_token_with_more_inputs_than_a_program_reads_together(n_in: int, flags: str, dtype: torch.dtype) -> None:
    assert_maps(TritonOperations(), 1, n_in, 9, flags, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@_SIZES
@pytest.mark.parametrize("flags", ["norm bias", "norm", "bias", ""])
def test_adding_to_the_stream_and_reading_it(
    tiled: LayerOperations, dtype: torch.dtype, n_in: int, n_out: int, flags: str
) -> None:
    for n_tokens in _WIDTHS:
        assert_adds(tiled, n_tokens, n_in, n_out, flags, dtype)


def assert_adds(
    operations: LayerOperations, n_tokens: int, n_in: int, n_out: int, flags: str, dtype: torch.dtype
) -> None:
    reader = random_tensor(40, n_out, dtype=dtype, seed=5) / n_out**0.5
    values = random_tensor(n_tokens, n_out, dtype=dtype, seed=4)
    x = random_tensor(n_tokens, n_in, dtype=dtype, seed=0)
    weight = random_tensor(n_out, n_in, dtype=dtype, seed=1) / n_in**0.5
    bias = random_tensor(n_out, dtype=dtype, seed=2) if "bias" in flags else None
    norm = random_norm(n_out, dtype, seed=3) if "norm" in flags else None
    found = operations.add(ResidualStream(values), x, weight, bias, norm)
    expected = PLAIN.add(ResidualStream(values.double()), x.double(), weight.double(), exact(bias), exact_norm(norm))
    assert_close(found.values, expected.values)
    assert_close(operations.normed(found), PLAIN.normed(expected))
    for gated in (False, True):
        read = operations.linear(found, reader, gated=gated)
        assert_close(read, PLAIN.linear(expected, reader.double(), gated=gated), roundings=2)


_POWERS = st.sampled_from([8, 16, 32])
_ANY_TILE = st.one_of(
    st.builds(
        HeldTile,
        tokens=_POWERS,
        outputs=_POWERS,
        held=st.integers(1, 2),
        batch=st.integers(1, 2),
        spread=st.booleans(),
    ),
    st.builds(
        LinearTile,
        tokens=_POWERS,
        outputs=_POWERS,
        inputs=_POWERS,
        warps=st.just(4),
        stages=st.just(2),
        splits=st.integers(1, 3),
    ),
)


@pytest.mark.skipif(ON_GPU, reason="compiling any tile takes minutes, and not every one fits into a multiprocessor")
@settings(max_examples=6)
@given(
    tile=_ANY_TILE,
    n_tokens=st.integers(2, 33),
    n_in=st.sampled_from([256, 512]),
    n_out=st.integers(1, 20),
    flags=st.sampled_from(["norm bias", "norm", "bias", "gate", "norm gate", ""]),
)
def test_a_map_does_not_depend_on_how_it_is_divided(
    tile: Tile, n_tokens: int, n_in: int, n_out: int, flags: str
) -> None:
    def tiles(n_tokens: int, n_out: int, n_in: int, gated: bool, itemsize: int) -> Tile:
        # Gated maps are no sums of their parts, and held tiles are for inputs that all warps share.
        if (gated and tile.splits > 1) or (isinstance(tile, HeldTile) and n_in % (HELD_WARPS * HELD_STEP)):
            return LinearTile(16, 16, 32, 4, 2)
        # Of its inputs a program holds at most all.
        if isinstance(tile, HeldTile) and tile.held > n_in // (HELD_WARPS * HELD_STEP):
            return HeldTile(tile.tokens, tile.outputs, 1, tile.batch, spread=tile.spread)
        return tile

    operations = TritonOperations(linear_tiles=tiles)
    assert_maps(operations, n_tokens, n_in, n_out, flags, torch.float32)
    if "gate" not in flags:
        assert_adds(operations, n_tokens, n_in, n_out, flags, torch.float32)


def test_logits_of_a_part_of_all_outputs() -> None:
    # The first of five tokens of each row: other rows' tokens lie between them.
    outputs = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(0)).to(DEVICE)[:, :1]
    head = nn.Linear(32, 20, bias=False, device=DEVICE)
    logits = Head(head, TritonOperations())(outputs)
    torch.testing.assert_close(logits, head(outputs), rtol=1e-4, atol=1e-5)
