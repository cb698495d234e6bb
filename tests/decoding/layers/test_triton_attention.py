"""Attention over the cache, and what writes and keeps its columns, by kernels against plain PyTorch."""

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from padrec.decoding import Placement, VariableLengthLayout
from padrec.decoding.layers.layer_operations import Heads, LayerAttention, LayerOperations
from padrec.decoding.layers.tiles import AttentionTile
from padrec.decoding.layers.triton_operations import TritonOperations
from tests.decoding.layers.exact_numbers import (
    PLAIN,
    assert_close,
    exact_attention,
    random_norm,
    random_tensor,
)
from tests.kernel_device import DEVICE, DTYPES, ON_GPU, needs_early_launch, needs_gpu

_COLUMNS = 512 if ON_GPU else 160
_PAST = [40, 1, 130] if ON_GPU else [40, 1, 70]
_WIDTHS = [1, 2, 7, 16, 17, 64, 65, 128, 129, 200] if ON_GPU else [1, 7, 17]
# A program rotates few heads of one token, and the interpreter takes one after the other: fewer rows and tokens.
_ROTATED_WIDTHS = _WIDTHS if ON_GPU else [1, 3]
_ROTATED_PAST = _PAST if ON_GPU else _PAST[1:]


@pytest.fixture(
    scope="module",
    params=[pytest.param(False, id="in turn"), pytest.param(True, marks=needs_early_launch, id="early")],
)
def fused(request: pytest.FixtureRequest) -> LayerOperations:
    return TritonOperations(request.param)


def placement_of(lengths: list[int], width: int, first: int, tree: bool) -> Placement:
    coin = random.Random(width)
    past = torch.tensor(lengths, device=DEVICE)
    if not tree:
        return Placement(past, torch.arange(width, device=DEVICE).expand(len(lengths), -1))
    ancestors = torch.zeros(len(lengths), width, first + width + 3, dtype=torch.bool)
    for row in ancestors:
        for token in range(width):
            parent = coin.randrange(-1, token)
            if parent >= 0:
                row[token] = row[parent]
            elif first > 0:
                row[token, coin.randrange(first)] = True
            row[token, first + token] = True
    ancestors = ancestors.to(DEVICE)
    return Placement(past, ancestors.sum(-1) - 1, first, ancestors)


def prompts_with_branches(lengths: list[int], n_branches: int, padding: int) -> Placement:
    """Chains of these lengths with a tree after each, in rows with room for more."""
    tree = placement_of([0] * len(lengths), n_branches, 0, tree=True).ancestors
    depths = torch.arange(max(lengths) + n_branches + padding, device=DEVICE).expand(len(lengths), -1)
    chain = torch.tensor(lengths, device=DEVICE)
    return Placement(torch.zeros_like(chain), depths, 0, tree, chain=chain)


_PLACES = pytest.mark.parametrize(
    ("first", "tree"), [(0, False), (0, True), (9, True)], ids=["chain", "tree", "behind a tree"]
)
_HEADS = pytest.mark.parametrize(
    "heads",
    [
        pytest.param(Heads(4, 4, 16, 0.25), id="16"),
        pytest.param(Heads(4, 2, 64, 0.125), id="64 grouped", marks=needs_gpu),
        pytest.param(Heads(8, 1, 128, 0.1), id="128 one key", marks=needs_gpu),
        pytest.param(Heads(6, 2, 16, 0.3), id="16 by threes"),
    ],
)


def layer_of(batch: int, heads: Heads, dtype: torch.dtype, has_norms: bool = False) -> LayerAttention:
    keys, values = (random_tensor(batch, heads.keys, _COLUMNS, heads.size, dtype=dtype, seed=seed) for seed in (5, 6))
    angles = random_tensor(_COLUMNS, heads.size // 2, dtype=torch.float32, seed=3).repeat(1, 2)
    norms = (random_norm(heads.size, dtype, 1), random_norm(heads.size, dtype, 2)) if has_norms else None
    return LayerAttention(heads, keys, values, (angles.cos(), angles.sin()), norms)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("has_norms", [True, False], ids=["norms", "plain"])
@_PLACES
@_HEADS
def test_rotation_and_storing(
    fused: LayerOperations, heads: Heads, first: int, tree: bool, has_norms: bool, dtype: torch.dtype
) -> None:
    for width in _ROTATED_WIDTHS:
        assert_rotates(fused, heads, placement_of(_ROTATED_PAST, width, first, tree), has_norms, dtype)


def assert_rotates(
    fused: LayerOperations, heads: Heads, placement: Placement, has_norms: bool, dtype: torch.dtype
) -> None:
    (batch, width), first = placement.depths.shape, placement.first
    qkv = random_tensor(batch * width, (heads.queries + 2 * heads.keys) * heads.size, dtype=dtype, seed=0)
    found_layer, layer = layer_of(batch, heads, dtype, has_norms), layer_of(batch, heads, dtype)
    expected_layer = exact_attention(found_layer)
    found = fused.rotate_and_store(qkv, found_layer, placement)
    expected = PLAIN.rotate_and_store(qkv.double(), expected_layer, placement)
    assert_close(found, expected)
    assert_close(found_layer.keys, expected_layer.keys)
    assert torch.equal(found_layer.values.double(), expected_layer.values)
    written = (found_layer.keys != layer.keys).any(-1).any(1)  # [B, S]
    column = torch.arange(_COLUMNS, device=DEVICE) - placement.lengths[:, None] - first
    assert not written[(column < 0) | (column >= width)].any(), "nothing else is touched"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@_PLACES
@_HEADS
def test_attention(fused: LayerOperations, heads: Heads, first: int, tree: bool, dtype: torch.dtype) -> None:
    for width in _WIDTHS:
        assert_attends(fused, heads, placement_of(_PAST, width, first, tree), dtype)


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@_PLACES
@pytest.mark.parametrize(
    "early", [pytest.param(False, id="in turn"), pytest.param(True, marks=needs_early_launch, id="early")]
)
@pytest.mark.parametrize(
    "tile",
    [
        AttentionTile(16, 64, 4, 4),
        AttentionTile(16, 128, 4, 2),
        AttentionTile(16, 256, 4, 2),
        AttentionTile(16, 256, 8, 2),
        AttentionTile(32, 128, 8, 2),
        AttentionTile(64, 64, 4, 4),
        AttentionTile(64, 64, 4, 3, apart=True, splits=4),
        AttentionTile(16, 32, 4, 2, splits=2),
    ],
    ids=str,
)
def test_attention_of_other_tiles(tile: AttentionTile, early: bool, first: int, tree: bool, dtype: torch.dtype) -> None:
    operations = TritonOperations(early, attention_tiles=lambda *sizes: tile)
    for lengths in ([40, 1, 130], [64, 256, 300]):
        for width in (1, 2, 10, 17, 64, 200):
            placement = placement_of(lengths, width, first, tree)
            assert_attends(operations, Heads(4, 2, 64, 0.125), placement, dtype)


@pytest.mark.skipif(ON_GPU, reason="compiling any tile takes minutes, and not every one fits into a multiprocessor")
@settings(max_examples=15)
@given(
    queries=st.sampled_from([1, 2, 16, 32]),
    columns=st.sampled_from([4, 16, 32, 128]),
    heads=st.sampled_from([Heads(1, 1, 16, 0.3), Heads(4, 2, 16, 0.25), Heads(3, 1, 32, 0.2)]),
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=2),
    width=st.integers(1, 12),
    first=st.integers(0, 4),
    tree=st.booleans(),
    apart=st.booleans(),
    splits=st.sampled_from([1, 2, 8]),
)
def test_attention_does_not_depend_on_how_it_is_divided(
    queries: int,
    columns: int,
    heads: Heads,
    lengths: list[int],
    width: int,
    first: int,
    tree: bool,
    apart: bool,
    splits: int,
) -> None:
    tile = AttentionTile(queries, columns, 4, 2, apart, splits)
    operations = TritonOperations(attention_tiles=lambda *sizes: tile)
    placement = placement_of(lengths, width, first if tree else 0, tree)
    assert_attends(operations, heads, placement, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "tile",
    [
        AttentionTile(16, 32, 4, 2),
        AttentionTile(16, 32, 4, 2, apart=True),
        AttentionTile(64, 32, 4, 2, apart=True),
        AttentionTile(64, 32, 4, 2, apart=True, splits=4),
    ],
)
def test_branches_see_their_prompt_and_their_own_path(tile: AttentionTile, dtype: torch.dtype) -> None:
    operations, heads = TritonOperations(attention_tiles=lambda *sizes: tile), Heads(4, 2, 16, 0.25)
    for lengths, n_branches in (([5, 1, 40], 6), ([70, 64, 33], 20), ([1, 2, 3], 1)):
        assert_attends(operations, heads, prompts_with_branches(lengths, n_branches, padding=3), dtype)


def assert_attends(fused: LayerOperations, heads: Heads, placement: Placement, dtype: torch.dtype) -> None:
    (batch, width), first = placement.depths.shape, placement.first
    queries = random_tensor(batch, width, heads.queries, heads.size, dtype=dtype, seed=0)
    layer = layer_of(batch, heads, dtype)
    # What is not filled may hold anything.
    end = placement.lengths + first + width
    unfilled = (torch.arange(_COLUMNS, device=DEVICE) >= end[:, None])[:, None, :, None]
    keys, values = (buffer.masked_fill(unfilled, torch.nan) for buffer in (layer.keys, layer.values))
    found = fused.attention(queries, replace(layer, keys=keys, values=values), placement)
    expected = PLAIN.attention(queries.double(), exact_attention(layer), placement)
    assert_close(found, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("part", ["all", "a value", "an infinite value"])
@_PLACES
def test_a_token_that_is_not_finite_reaches_only_those_that_see_it(
    fused: LayerOperations, first: int, tree: bool, part: str, dtype: torch.dtype
) -> None:
    heads, batch, width, spoilt = Heads(4, 2, 16, 0.25), len(_ROTATED_PAST), 4, 1
    placement = placement_of(_ROTATED_PAST, width, first, tree)
    qkv = random_tensor(batch * width, (heads.queries + 2 * heads.keys) * heads.size, dtype=dtype, seed=0)
    row = qkv.clone().view(batch, width, -1)
    if part == "all":
        row[1, spoilt] = torch.nan
    else:
        row[1, spoilt, -1] = torch.nan if part == "a value" else torch.inf
    outputs = []
    for read in (qkv, row.flatten(0, 1)):
        layer = layer_of(batch, heads, dtype)
        seen = fused.attention(fused.rotate_and_store(read, layer, placement), layer, placement)
        outputs.append(seen.view(batch, width, heads.queries, heads.size))
    sees = torch.arange(width, device=DEVICE) >= spoilt
    if placement.ancestors is not None:
        sees = placement.ancestors[1, :, first + spoilt]
    reached = torch.zeros(batch, width, heads.queries, dtype=torch.bool, device=DEVICE)
    reached[1, :, 0 if part == "all" else 2 :] = sees[:, None]  # the last two query heads share a key head
    assert torch.equal(outputs[1].isnan().all(-1), reached)
    assert torch.equal(outputs[1][~reached], outputs[0][~reached])


# Rows' lengths, and packed tokens after them.
_PACKED = pytest.mark.parametrize(
    ("lengths", "spare"),
    [
        pytest.param([2, 1, 5], 2, id="shortest"),
        pytest.param([9, 1, 33], 5, id="short", marks=needs_gpu),
        pytest.param([7, 7, 7], 0, id="equal", marks=needs_gpu),
        pytest.param([130, 1, 17], 60, id="long", marks=needs_gpu),
        pytest.param([1, 1, 200], 56, id="one long row", marks=needs_gpu),
    ],
)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("past", [[0, 0, 0], _PAST], ids=["prompts", "behind a past"])
@pytest.mark.parametrize("tree", [False, True], ids=["chain", "tree"])
@_PACKED
@_HEADS
def test_packed_rows_are_stored_and_attended_to(
    fused: LayerOperations,
    heads: Heads,
    lengths: list[int],
    spare: int,
    tree: bool,
    past: list[int],
    dtype: torch.dtype,
) -> None:
    n_tokens, count = sum(lengths), torch.tensor(lengths, device=DEVICE)
    layout = VariableLengthLayout.of(count, max(lengths), n_tokens + spare)
    placement = replace(placement_of(past, max(lengths), 0, tree), layout=layout)
    qkv = random_tensor(n_tokens + spare, (heads.queries + 2 * heads.keys) * heads.size, dtype=dtype, seed=0)
    qkv[n_tokens:] = torch.nan
    layer = layer_of(3, heads, dtype, has_norms=True)
    expected_layer = exact_attention(layer)
    # What the rows do not fill may hold anything, and keeps it.
    column = torch.arange(_COLUMNS, device=DEVICE) - placement.lengths[:, None]
    for buffer in (layer.keys, layer.values):
        buffer.masked_fill_((column >= count[:, None])[:, None, :, None], torch.nan)
    before = layer.keys.nan_to_num(7.0)
    queries = fused.rotate_and_store(qkv, layer, placement)
    exact_queries = PLAIN.rotate_and_store(qkv.double(), expected_layer, placement)
    written = (column >= 0) & (column < count[:, None])
    assert torch.equal((layer.keys.nan_to_num(7.0) != before).any(-1).any(1), written), "nothing else is touched"
    for found, expected in ((layer.keys, expected_layer.keys), (layer.values, expected_layer.values)):
        assert_close(found.transpose(1, 2)[written], expected.transpose(1, 2)[written])
    seen = fused.attention(queries, layer, placement)
    assert seen.shape[0] == n_tokens + spare
    expected = PLAIN.attention(exact_queries, expected_layer, placement)
    assert_close(seen[:n_tokens], expected[:n_tokens])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("depth", [2, 3, 8, 11, 17])
@pytest.mark.parametrize("size", [16, *(pytest.param(size, marks=needs_gpu) for size in (64, 128))])
def test_keeping_a_path(fused: LayerOperations, size: int, depth: int, dtype: torch.dtype) -> None:
    coin = random.Random(depth)
    keys, values = random_tensor(2, 3, 2, 2, _COLUMNS, size, dtype=dtype, seed=0)
    lengths = torch.tensor([7, _COLUMNS - 70], device=DEVICE)
    path = torch.tensor([sorted(coin.sample(range(60), depth)) for _ in range(2)], device=DEVICE)
    expected_keys, expected_values = keys.clone(), values.clone()
    PLAIN.keep(expected_keys, expected_values, lengths, path)
    fused.keep(keys, values, lengths, path)
    assert torch.equal(keys, expected_keys)
    assert torch.equal(values, expected_values)
