"""What runs on a GPU alone: fused kernels against plain PyTorch, recorded decoding against eager decoding."""

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from padrec.decoding.lists.top_k import top_k
from padrec.decoding.rounds.settling import settle
from torch import Tensor
from transformers import PreTrainedModel

from padrec.catalog import CatalogTrie, SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    BeamDecoder,
    CatalogConstraint,
    Chain,
    Choice,
    Constraint,
    Decoder,
    DynamicTree,
    FreeDecoding,
    ListBuffer,
    ListRequest,
    ListState,
    Packing,
    Placement,
    Prompts,
    Recording,
    RootOnly,
    Sampling,
    SpeculativeDecoder,
    TokenTree,
    TransformersRunner,
    TreeExpansion,
)
from padrec.decoding.layers.attention_tiles import AttentionTile
from padrec.decoding.layers.layer_operations import Heads, LayerCache, LayerOperations, RMSNorm, Stream
from padrec.decoding.layers.linear_tiles import LinearTile, TileChoice, linear_tile, streamed_tile
from padrec.decoding.lists import chosen_tokens
from padrec.decoding.lists.chosen_tokens import ChosenTokens, choose_tokens
from padrec.decoding.lists.decoding_trace import RoundStatistics
from padrec.decoding.lists.list_state import concatenate
from padrec.decoding.lists.sampling import Guess
from padrec.decoding.rounds import session
from padrec.decoding.trees.forced_runs import ForcedRuns
from padrec.decoding.trees.tree_growth import TreeGrowth, growth_of
from padrec.targets import build_backbone, to_precision
from tests.stubs import random_catalog, random_network_draft, random_prompts

_DEVICE = torch.device("cuda")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

_PLAIN = LayerOperations()
_DTYPES = [torch.bfloat16, torch.float16, torch.float32]
# Relative to the result, and to values around 1 that have been summed up to it.
_TOLERANCE = {torch.bfloat16: 3e-2, torch.float16: 4e-3, torch.float32: 1e-4}
_WIDTHS = [1, 2, 7, 16, 17, 64, 65, 128, 129, 200]
_COLUMNS = 512


def split_tile(n_tokens: int, n_out: int, n_in: int, gated: bool, itemsize: int) -> LinearTile:
    """Programs share the inputs of all maps that are sums."""
    return LinearTile(64, 32, 128 // itemsize, 4, 3, 1 if gated else 4)


def mixed_tile(n_tokens: int, n_out: int, n_in: int, gated: bool, itemsize: int) -> LinearTile | None:
    """The vendor's products stand between maps by kernels, whatever the number of tokens."""
    return None if gated or n_out > 1024 or n_out == 40 else split_tile(n_tokens, n_out, n_in, gated, itemsize)


@pytest.fixture(scope="module", params=[False, True], ids=["in turn", "early"])
def fused(request: pytest.FixtureRequest) -> LayerOperations:
    """Operations that have to do with no linear map, and so with none of their tiles."""
    return operations_of(request.param, linear_tile)


@pytest.fixture(
    scope="module",
    params=[(False, streamed_tile), (True, streamed_tile), (True, linear_tile), (True, split_tile), (True, mixed_tile)],
    ids=["in turn", "early", "early and held", "early and split", "early and mixed"],
)
def tiled(request: pytest.FixtureRequest) -> LayerOperations:
    """Operations whose linear maps are divided among programs in one of several ways."""
    return operations_of(*request.param)


def operations_of(early: bool, tiles: TileChoice) -> LayerOperations:
    if early and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("needs a GPU that launches kernels early")
    triton_operations = pytest.importorskip("padrec.decoding.layers.triton_operations")
    operations: LayerOperations = triton_operations.TritonOperations(early, tiles)
    return operations


def random_tensor(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype).to(_DEVICE)


def exact(x: Tensor | None) -> Tensor | None:
    """The same numbers in float64, for operations whose result is then as good as exact."""
    return None if x is None else x.double()


def exact_norm(norm: RMSNorm | None) -> RMSNorm | None:
    return None if norm is None else RMSNorm(norm.weight.double(), norm.eps)


def exact_cache(cache: LayerCache) -> LayerCache:
    return LayerCache(cache.keys.double(), cache.values.double())


def assert_close(found: Tensor, expected: Tensor, roundings: int = 1) -> None:
    tolerance = roundings * _TOLERANCE[found.dtype]
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


def random_norm(size: int, dtype: torch.dtype, seed: int) -> RMSNorm:
    return RMSNorm(random_tensor(size, dtype=dtype, seed=seed), 1e-6)


@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
@pytest.mark.parametrize(("n_in", "n_out"), [(64, 48), (200, 100), (512, 100), (1024, 2304), (3072, 1024)])
@pytest.mark.parametrize("flags", ["norm bias", "norm gate", "bias", ""])
def test_the_linear_maps_of_a_layer(
    tiled: LayerOperations, dtype: torch.dtype, n_in: int, n_out: int, flags: str
) -> None:
    gated = "gate" in flags
    rows = 2 * n_out if gated else n_out
    for n_tokens in _WIDTHS:
        x = random_tensor(n_tokens, n_in, dtype=dtype, seed=0)
        weight = random_tensor(rows, n_in, dtype=dtype, seed=1) / n_in**0.5
        bias = random_tensor(rows, dtype=dtype, seed=2) if "bias" in flags else None
        norm = random_norm(n_in, dtype, seed=3) if "norm" in flags else None
        found = tiled.linear(Stream(x, norm), weight, bias, gated, ordered=n_tokens % 2 == 0)
        assert found.dtype == dtype
        expected = _PLAIN.linear(Stream(x.double(), exact_norm(norm)), weight.double(), exact(bias), gated)
        assert_close(found, expected)


@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
@pytest.mark.parametrize(("n_in", "n_out"), [(64, 48), (200, 100), (512, 100), (1024, 2304), (3072, 1024)])
@pytest.mark.parametrize("flags", ["norm bias", "norm", "bias", ""])
def test_adding_to_the_stream_and_reading_it(
    tiled: LayerOperations, dtype: torch.dtype, n_in: int, n_out: int, flags: str
) -> None:
    reader = random_tensor(40, n_out, dtype=dtype, seed=5) / n_out**0.5
    for n_tokens in _WIDTHS:
        values = random_tensor(n_tokens, n_out, dtype=dtype, seed=4)
        x = random_tensor(n_tokens, n_in, dtype=dtype, seed=0)
        weight = random_tensor(n_out, n_in, dtype=dtype, seed=1) / n_in**0.5
        bias = random_tensor(n_out, dtype=dtype, seed=2) if "bias" in flags else None
        norm = random_norm(n_out, dtype, seed=3) if "norm" in flags else None
        found = tiled.add(Stream(values), x, weight, bias, norm)
        expected = _PLAIN.add(Stream(values.double()), x.double(), weight.double(), exact(bias), exact_norm(norm))
        assert_close(found.values, expected.values)
        assert_close(tiled.normed(found), _PLAIN.normed(expected))
        for gated in (False, True):
            read = tiled.linear(found, reader, gated=gated)
            assert_close(read, _PLAIN.linear(expected, reader.double(), gated=gated), roundings=2)


def placement_of(lengths: list[int], width: int, first: int, tree: bool) -> Placement:
    coin = random.Random(width)
    past = torch.tensor(lengths, device=_DEVICE)
    if not tree:
        return Placement(past, torch.arange(width, device=_DEVICE).expand(len(lengths), -1))
    ancestors = torch.zeros(len(lengths), width, first + width + 3, dtype=torch.bool)
    for row in ancestors:
        for token in range(width):
            parent = coin.randrange(-1, token)
            if parent >= 0:
                row[token] = row[parent]
            elif first > 0:
                row[token, coin.randrange(first)] = True
            row[token, first + token] = True
    ancestors = ancestors.to(_DEVICE)
    return Placement(past, ancestors.sum(-1) - 1, first, ancestors)


_PLACES = pytest.mark.parametrize(
    ("first", "tree"), [(0, False), (0, True), (9, True)], ids=["chain", "tree", "behind a tree"]
)
_HEADS = pytest.mark.parametrize(
    "heads",
    [Heads(4, 4, 16, 0.25), Heads(4, 2, 64, 0.125), Heads(8, 1, 128, 0.1), Heads(6, 2, 16, 0.3)],
    ids=["16", "64 grouped", "128 one key", "16 by threes"],
)


def cache_of(batch: int, heads: Heads, dtype: torch.dtype) -> LayerCache:
    keys, values = (random_tensor(batch, heads.keys, _COLUMNS, heads.size, dtype=dtype, seed=seed) for seed in (5, 6))
    return LayerCache(keys, values)


@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
@pytest.mark.parametrize("has_norms", [True, False], ids=["norms", "plain"])
@_PLACES
@_HEADS
def test_rotation_and_storing(
    fused: LayerOperations, heads: Heads, first: int, tree: bool, has_norms: bool, dtype: torch.dtype
) -> None:
    for width in _WIDTHS:
        assert_rotates(fused, heads, placement_of([40, 1, 130], width, first, tree), has_norms, dtype)


def assert_rotates(
    fused: LayerOperations, heads: Heads, placement: Placement, has_norms: bool, dtype: torch.dtype
) -> None:
    width, first = placement.depths.shape[1], placement.first
    qkv = random_tensor(3 * width, (heads.queries + 2 * heads.keys) * heads.size, dtype=dtype, seed=0)
    query_norm, key_norm = (RMSNorm(random_tensor(heads.size, dtype=dtype, seed=seed), 1e-6) for seed in (1, 2))
    angles = random_tensor(_COLUMNS, heads.size // 2, dtype=torch.float32, seed=3).repeat(1, 2)
    rotary = (angles.cos(), angles.sin())
    found_cache, cache = cache_of(3, heads, dtype), cache_of(3, heads, dtype)
    expected_cache = exact_cache(cache)
    norms = exact_norms = None
    if has_norms:
        norms = (query_norm, key_norm)
        exact_norms = (RMSNorm(query_norm.weight.double(), 1e-6), RMSNorm(key_norm.weight.double(), 1e-6))
    found = fused.rotate_and_store(qkv, heads, norms, rotary, placement, found_cache)
    expected = _PLAIN.rotate_and_store(qkv.double(), heads, exact_norms, rotary, placement, expected_cache)
    assert_close(found, expected)
    assert_close(found_cache.keys, expected_cache.keys)
    assert torch.equal(found_cache.values.double(), expected_cache.values)
    written = (found_cache.keys != cache.keys).any(-1).any(1)  # [B, S]
    column = torch.arange(_COLUMNS, device=_DEVICE) - placement.lengths[:, None] - first
    assert not written[(column < 0) | (column >= width)].any(), "nothing else is touched"


@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
@_PLACES
@_HEADS
def test_attention(fused: LayerOperations, heads: Heads, first: int, tree: bool, dtype: torch.dtype) -> None:
    for width in _WIDTHS:
        assert_attends(fused, heads, placement_of([40, 1, 130], width, first, tree), dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@_PLACES
@pytest.mark.parametrize("early", [False, True], ids=["in turn", "early"])
@pytest.mark.parametrize(
    "tile",
    [
        AttentionTile(16, 64, 4, 4),
        AttentionTile(16, 128, 4, 2),
        AttentionTile(16, 256, 4, 2),
        AttentionTile(16, 256, 8, 2),
        AttentionTile(32, 128, 8, 2),
        AttentionTile(64, 64, 4, 4),
    ],
    ids=str,
)
def test_attention_of_other_tiles(tile: AttentionTile, early: bool, first: int, tree: bool, dtype: torch.dtype) -> None:
    if early and torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("needs a GPU that launches kernels early")
    triton_operations = pytest.importorskip("padrec.decoding.layers.triton_operations")
    operations = triton_operations.TritonOperations(early, attention_tiles=lambda *sizes: tile)
    for lengths in ([40, 1, 130], [64, 256, 300]):
        for width in (1, 2, 10, 17, 64, 200):
            placement = placement_of(lengths, width, first, tree)
            assert_attends(operations, Heads(4, 2, 64, 0.125), placement, dtype)


def assert_attends(fused: LayerOperations, heads: Heads, placement: Placement, dtype: torch.dtype) -> None:
    width, first = placement.depths.shape[1], placement.first
    queries = random_tensor(3, width, heads.queries, heads.size, dtype=dtype, seed=0)
    cache = cache_of(3, heads, dtype)
    # What is not filled may hold anything.
    end = placement.lengths + first + width
    unfilled = (torch.arange(_COLUMNS, device=_DEVICE) >= end[:, None])[:, None, :, None]
    found = fused.attention(
        queries,
        heads,
        placement,
        LayerCache(cache.keys.masked_fill(unfilled, torch.nan), cache.values.masked_fill(unfilled, torch.nan)),
    )
    expected = _PLAIN.attention(queries.double(), heads, placement, exact_cache(cache))
    assert_close(found, expected)


# Rows' lengths, and packed tokens behind them.
_PACKED = pytest.mark.parametrize(
    ("lengths", "spare"),
    [([9, 1, 33], 5), ([130, 1, 17], 60), ([7, 7, 7], 0), ([1, 1, 200], 56)],
    ids=["short", "long", "equal", "one long row"],
)


@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
@pytest.mark.parametrize("past", [[0, 0, 0], [40, 1, 130]], ids=["prompts", "behind a past"])
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
    n_tokens, count = sum(lengths), torch.tensor(lengths, device=_DEVICE)
    packing = Packing.of(count, max(lengths), n_tokens + spare)
    placement = replace(placement_of(past, max(lengths), 0, tree), packing=packing)
    qkv = random_tensor(n_tokens + spare, (heads.queries + 2 * heads.keys) * heads.size, dtype=dtype, seed=0)
    qkv[n_tokens:] = torch.nan
    norms = random_norm(heads.size, dtype, 1), random_norm(heads.size, dtype, 2)
    exact_norms = RMSNorm(norms[0].weight.double(), 1e-6), RMSNorm(norms[1].weight.double(), 1e-6)
    angles = random_tensor(_COLUMNS, heads.size // 2, dtype=torch.float32, seed=3).repeat(1, 2)
    rotary = (angles.cos(), angles.sin())
    cache = cache_of(3, heads, dtype)
    expected_cache = exact_cache(cache)
    # What the rows do not fill may hold anything, and keeps it.
    column = torch.arange(_COLUMNS, device=_DEVICE) - placement.lengths[:, None]
    for buffer in (cache.keys, cache.values):
        buffer.masked_fill_((column >= count[:, None])[:, None, :, None], torch.nan)
    before = cache.keys.nan_to_num(7.0)
    queries = fused.rotate_and_store(qkv, heads, norms, rotary, placement, cache)
    exact_queries = _PLAIN.rotate_and_store(qkv.double(), heads, exact_norms, rotary, placement, expected_cache)
    written = (column >= 0) & (column < count[:, None])
    assert torch.equal((cache.keys.nan_to_num(7.0) != before).any(-1).any(1), written), "nothing else is touched"
    for found, expected in ((cache.keys, expected_cache.keys), (cache.values, expected_cache.values)):
        assert_close(found.transpose(1, 2)[written], expected.transpose(1, 2)[written])
    seen = fused.attention(queries, heads, placement, cache)
    assert seen.shape[0] == n_tokens + spare
    expected = _PLAIN.attention(exact_queries, heads, placement, expected_cache)
    assert_close(seen[:n_tokens], expected[:n_tokens])


@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
@pytest.mark.parametrize("depth", [2, 3, 8, 11, 17])
@pytest.mark.parametrize("size", [16, 64, 128])
def test_keeping_a_path(fused: LayerOperations, size: int, depth: int, dtype: torch.dtype) -> None:
    coin = random.Random(depth)
    keys, values = random_tensor(2, 3, 2, 2, _COLUMNS, size, dtype=dtype, seed=0)
    lengths = torch.tensor([7, 300], device=_DEVICE)
    path = torch.tensor([sorted(coin.sample(range(60), depth)) for _ in range(2)], device=_DEVICE)
    expected_keys, expected_values = keys.clone(), values.clone()
    _PLAIN.keep(expected_keys, expected_values, lengths, path)
    fused.keep(keys, values, lengths, path)
    assert torch.equal(keys, expected_keys)
    assert torch.equal(values, expected_values)


@pytest.mark.parametrize(("shape", "k"), [((3, 5), 5), ((2, 10, 1200), 10), ((1, 100), 7), ((4, 8192), 32)])
@pytest.mark.parametrize("compiled", [False, True])
def test_the_largest_values_of_a_row(shape: tuple[int, ...], k: int, compiled: bool) -> None:
    values = random_tensor(*shape, dtype=torch.float32, seed=0)
    # Fewer finite values than are asked for, equal ones, and zeros of both signs.
    values[..., k - 1 :] = -torch.inf
    values[0, ..., :2] = torch.tensor([0.0, -0.0])
    best, indices = (torch.compile(top_k, dynamic=False) if compiled else top_k)(values, k)
    assert torch.equal(best, values.topk(k).values)
    assert torch.equal(best, values.gather(-1, indices))
    assert all(len(set(row)) == k for row in indices.reshape(-1, k).tolist()), "no value is taken twice"


def walked(constraint: Constraint[Any], steps: list[int]) -> ListState:
    """States `[rows]` behind so many allowed tokens each."""
    generator = torch.Generator().manual_seed(3)
    state = constraint.initial(len(steps), torch.device("cpu")).unsqueeze()
    seen = [state]
    for _ in range(max(steps)):
        allowed = constraint.allowed(state)
        chances = torch.ones(len(steps), 1, 40) if allowed is None else allowed.double()
        token = torch.multinomial(chances.flatten(0, 1), 1, generator=generator)
        state = constraint.advance(state, token)
        seen.append(state)
    walk: ListState = concatenate(seen)
    return walk.gather(torch.tensor(steps)[:, None]).squeeze()


def on_device(states: ListState) -> ListState:
    return replace(states, **{field.name: getattr(states, field.name).to(_DEVICE) for field in fields(states)})


def assert_same_states(found: ListState, expected: ListState, where: Tensor) -> None:
    for field in fields(expected):
        value = getattr(found, field.name).cpu()
        assert torch.equal(value[where], getattr(expected, field.name)[where]), field.name


def assert_same_tree(found: TokenTree, expected: TokenTree) -> None:
    assert torch.equal(found.present.cpu(), expected.present)
    for name in ("tokens", "parents", "depths", "ancestors"):
        assert torch.equal(getattr(found, name).cpu()[expected.present], getattr(expected, name)[expected.present]), (
            name
        )
    scores = (tree.scores.cpu()[expected.present].float() for tree in (found, expected))
    torch.testing.assert_close(*scores, atol=1e-4, rtol=1e-5)
    assert_same_states(found.states, expected.states, expected.present)
    assert found.max_depth == expected.max_depth


@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 2, 3), (1, 8, 9), (3, 4, 12), (10, 5, 52), (4, 9, 64)], ids=str)
@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("vocabulary", [{}, {"separator": False}, {"shared_codes": True}], ids=str)
# Without noise logits of few bits are often equal, and which of them comes first is open.
@pytest.mark.parametrize(
    ("noisy", "dtype"), [(False, torch.float32), (True, torch.float32), (True, torch.bfloat16)], ids=str
)
def test_a_tree_grows_as_in_plain_pytorch(
    shape: tuple[int, int, int], constrained: bool, vocabulary: dict[str, Any], noisy: bool, dtype: torch.dtype
) -> None:
    width, depth, nodes = shape
    tokens = SemanticIDVocabulary((12, 20, 9), **vocabulary)
    # Far from the end of a list: behind it nothing may follow, and whatever is found there is never used.
    constraint: Constraint[Any] = FreeDecoding(tokens)
    there: Constraint[Any] = constraint
    if constrained:
        trie = CatalogTrie(random_catalog((12, 20, 9), 60), tokens)
        constraint = CatalogConstraint(trie, tokens, 20)
        there = CatalogConstraint(copy.deepcopy(trie).to(_DEVICE), tokens, 20)
    state = walked(constraint, [0, 3, 8, 17])
    guess, root = Guess(0.5, 2.0 if noisy else 0.0), torch.tensor([1, 5, 6, 7])
    plain = TreeGrowth(root, state, constraint, guess, width, nodes)
    found = growth_of(root.to(_DEVICE), on_device(state), there, guess, width, depth, nodes)
    assert type(found).__name__ == "TritonGrowth"
    noise = random_tensor(4, depth, tokens.size, dtype=torch.float32, seed=1) if noisy else None
    for level in range(depth):
        # A part of a wider product, as head and fusion are.
        n_nodes = 1 if level == 0 else width
        logits = random_tensor(4, n_nodes, tokens.size + 5, dtype=dtype, seed=level)[..., : tokens.size]
        known = None if noise is None else noise[:, level]
        found.grow(logits, known)
        plain.grow(logits.double().cpu(), None if known is None else known.cpu())
    trees = found.tree(), plain.tree()
    assert_same_tree(*trees)
    for leaves, length in ((1, 3), (4, 2)):
        runs = ForcedRuns(min(leaves, nodes), length)
        assert_same_tree(runs.extend(trees[0], there), runs.extend(trees[1], constraint))


@pytest.mark.parametrize("vocabulary", [{}, {"separator": False}, {"shared_codes": True}], ids=str)
@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.3])
@pytest.mark.parametrize("dtype", _DTYPES, ids=str)
@pytest.mark.parametrize("sizes", [(4, 5, 3), (300, 5, 3)], ids=str)
def test_the_target_chooses_as_in_plain_pytorch(
    sizes: tuple[int, ...],
    dtype: torch.dtype,
    temperature: float,
    vocabulary: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens = SemanticIDVocabulary(sizes, **vocabulary)
    trie = CatalogTrie(random_catalog(sizes, 40), tokens)
    # Lists of all items, so that more and more of what the trie holds is used up.
    n_items = trie.n_leaves
    constraint: Any = CatalogConstraint(trie, tokens, n_items)
    there: Any = CatalogConstraint(copy.deepcopy(trie).to(_DEVICE), tokens, n_items)
    end = tokens.list_tokens(n_items)
    flat = walked(constraint, [0, 1, 2, 3, 4, end // 3, end // 2, end - 9, end - 3, end - 2, end - 1, end])
    states = replace(flat, **{field.name: getattr(flat, field.name).unflatten(0, (3, 4)) for field in fields(flat)})
    depths = torch.tensor([[0, 1, 1, 2], [0, 2, 1, 1], [2, 1, 0, 0]])
    sampling = Sampling(temperature)
    choice = sampling.choice(torch.tensor([5, -7, 11]), torch.tensor([0, 3, 60]), 2, tokens.size)
    known = Choice(sampling, None if choice.noise is None else choice.noise.to(_DEVICE))
    logits = random_tensor(3, 4, tokens.size + 5, dtype=dtype, seed=0)[..., : tokens.size]
    logits[:, 1] = 0  # of equal logits the first is chosen, where there is no noise
    expected = choose_tokens(logits.double().cpu(), states, depths, choice, constraint)
    monkeypatch.setattr(chosen_tokens, "_choose_tokens", None)
    found = choose_tokens(logits, on_device(states), depths.to(_DEVICE), known, there)
    is_open = constraint.allowed(states).any(-1)
    assert is_open.sum() == 11
    assert torch.equal(found.tokens.cpu()[is_open], expected.tokens[is_open])
    assert ((found.tokens >= 0) & (found.tokens < tokens.size)).all()
    assert found.log_probs.dtype == torch.float32
    log_probs = found.log_probs.cpu()[is_open].double(), expected.log_probs[is_open]
    torch.testing.assert_close(*log_probs, atol=1e-5, rtol=1e-5)
    assert_same_states(found.states, expected.states, is_open)
    # Beside no other node the choice is the very same.
    for row, node in ((0, 0), (1, 3), (2, 2)):
        part = slice(row, row + 1), slice(node, node + 1)
        state = replace(states, **{field.name: getattr(states, field.name)[part] for field in fields(states)})
        noise = Choice(sampling, None if known.noise is None else known.noise[part[0]])
        alone = choose_tokens(logits[part], on_device(state), depths[part].to(_DEVICE), noise, there)
        assert torch.equal(alone.tokens, found.tokens[part])
        assert torch.equal(alone.log_probs, found.log_probs[part])


def chosen_of(tree: TokenTree, constraint: Constraint[Any], n_tokens: int, agrees: float, seed: int) -> ChosenTokens:
    """What a target may choose at every node, so often the token of one of its children."""
    generator = torch.Generator().manual_seed(seed)
    allowed = constraint.allowed(tree.states)
    if allowed is None:
        allowed = torch.ones(*tree.tokens.shape, n_tokens, dtype=torch.bool)
    # Behind the end of a list anything is chosen.
    chances = (allowed | ~allowed.any(-1, keepdim=True)).flatten(0, 1).float()
    tokens = torch.multinomial(chances, 1, generator=generator).view(tree.tokens.shape)
    agreed = torch.rand(tree.tokens.shape, generator=generator) < agrees
    for row, node in (agreed & tree.present).nonzero().tolist():
        if node > 0:
            tokens[row, tree.parents[row, node]] = tree.tokens[row, node]
    log_probs = torch.randn(tokens.shape, generator=generator)
    return ChosenTokens(tokens, log_probs, constraint.advance(tree.states, tokens))


def lists_at(request: ListRequest, lengths: list[int], device: torch.device) -> ListBuffer:
    """Lists of which so much is written; the last one is finished."""
    lists = ListBuffer(request, len(lengths), device)
    lists.clear(torch.zeros_like(lists.keys))
    lists.lengths.copy_(torch.tensor(lengths))
    lists.finished[-1] = True
    return lists


@pytest.mark.parametrize("agrees", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 8, 9), (3, 4, 12), (4, 9, 64)], ids=str)
def test_a_round_is_settled_as_in_plain_pytorch(shape: tuple[int, int, int], constrained: bool, agrees: float) -> None:
    width, depth, nodes = shape
    vocabulary, catalog = SemanticIDVocabulary((12, 20, 9)), random_catalog((12, 20, 9), 60)
    request, there = (
        ListRequest.build(catalog, vocabulary, 6, constrained=constrained, device=device) for device in ("cpu", _DEVICE)
    )
    constraint, steps = request.constraint, [0, 3, 8, 17, 4]
    state = walked(constraint, steps)
    growth = TreeGrowth(torch.tensor([1, 5, 6, 7, 8]), state, constraint, Guess(0.5, 0.0), width, nodes)
    for level in range(depth):
        growth.grow(torch.randn(5, 1 if level == 0 else width, vocabulary.size), None)
    tree = ForcedRuns(2, 2 if constrained else 0).extend(growth.tree(), constraint)
    expansion = DynamicTree(depth, width, nodes)
    written = [0, 3, 8, request.n_tokens - 2, 4]
    chosen = chosen_of(tree, constraint, vocabulary.size, agrees, seed=depth)
    if not constrained:
        chosen.tokens[2, 0] = vocabulary.eos_token
    assert_settles(tree, chosen, expansion, request, there, written)


@pytest.mark.parametrize("constrained", [False, True])
def test_a_round_without_proposals_is_settled_as_in_plain_pytorch(constrained: bool) -> None:
    vocabulary, catalog = SemanticIDVocabulary((12, 20, 9)), random_catalog((12, 20, 9), 60)
    request, there = (
        ListRequest.build(catalog, vocabulary, 6, constrained=constrained, device=device) for device in ("cpu", _DEVICE)
    )
    state = walked(request.constraint, [0, 3, 8, 17, 4])
    tree = TokenTree.root_only(torch.tensor([1, 5, 6, 7, 8]), state)
    chosen = chosen_of(tree, request.constraint, vocabulary.size, 1.0, seed=0)
    if not constrained:
        chosen.tokens[2, 0] = vocabulary.eos_token
    written = [0, 3, 8, request.n_tokens - 1, 4]
    assert_settles(tree, chosen, RootOnly(), request, there, written)


def assert_settles(
    tree: TokenTree,
    chosen: ChosenTokens,
    expansion: TreeExpansion,
    request: ListRequest,
    there: ListRequest,
    written: list[int],
) -> None:
    """On the GPU, for the request `there`, as on the CPU, behind so many tokens that are `written`."""
    found_lists, lists = lists_at(there, written, _DEVICE), lists_at(request, written, torch.device("cpu"))
    n_slot_states = request.vocabulary.n_slot_states
    counts, found_counts = (
        RoundStatistics(5, n_slot_states, tree.max_depth, x.lengths.device) for x in (lists, found_lists)
    )
    expected = settle(tree, chosen, lists, counts, expansion)
    found = settle(tree_on_device(tree), chosen_on_device(chosen), found_lists, found_counts, expansion)
    assert torch.equal(found.path.cpu(), expected.path)
    assert torch.equal(found.count.cpu(), expected.count)
    kept = torch.arange(tree.max_depth + 1) < expected.count[:, None]
    assert torch.equal(found.emitted.cpu()[kept], expected.emitted[kept])
    assert torch.equal(found.slots.cpu()[kept], expected.slots[kept])
    for name in ("lengths", "finished"):
        assert torch.equal(getattr(found_lists, name).cpu(), getattr(lists, name)), name
    assert torch.equal(found_lists.last.cpu()[~lists.finished], lists.last[~lists.finished])
    # What stands behind a list is never read.
    assert torch.equal(found_lists.tokens.cpu()[:, :-1], lists.tokens[:, :-1])
    assert torch.equal(found_lists.log_probs.cpu()[:, :-1], lists.log_probs[:, :-1])
    assert_same_states(found_lists.state, lists.state, ~lists.finished)
    for one, other in zip(found_counts.counts, counts.counts, strict=True):
        assert torch.equal(one.cpu(), other)


def tree_on_device(tree: TokenTree) -> TokenTree:
    moved = {name: getattr(tree, name).to(_DEVICE) for name in _OF_NODES}
    return replace(tree, **moved, states=on_device(tree.states))


def chosen_on_device(chosen: ChosenTokens) -> ChosenTokens:
    return ChosenTokens(chosen.tokens.to(_DEVICE), chosen.log_probs.to(_DEVICE), on_device(chosen.states))


_OF_NODES = ("tokens", "parents", "depths", "ancestors", "scores", "present")
_SIZES, _K = (5, 6, 4), 3
_CATALOG = random_catalog(_SIZES, 30)
_VOCABULARY = SemanticIDVocabulary(_SIZES)
_BATCHES = [[3, 1], [9, 0], [4, 1, 0], [6], [12, 30], [3, 1]]  # users, by the items of their histories


def target(head_size: int, dtype: torch.dtype, seed: int = 0) -> PreTrainedModel:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "initializer_range": 0.3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": head_size}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_backbone({"model_type": "qwen3", **sizes, **heads}, _VOCABULARY)
    to_precision(model, dtype)
    model.eval().requires_grad_(False).to(_DEVICE)
    return model


def speculative(expansion: Chain | DynamicTree) -> Callable[[PreTrainedModel], Decoder]:
    def decoder(model: PreTrainedModel) -> Decoder:
        draft = random_network_draft(model, _VOCABULARY)
        draft.network.to(_DEVICE)
        return SpeculativeDecoder(draft, expansion)

    return decoder


_DECODERS: dict[str, Callable[[PreTrainedModel], Decoder]] = {
    "autoregressive": lambda model: AutoregressiveDecoder(),
    "forced": lambda model: AutoregressiveDecoder(forced_tokens=True),
    "chain": speculative(Chain(3)),
    "tree": speculative(DynamicTree(3, 3, 10)),
}


class EagerRecording:
    """Runs what would be recorded."""

    def __init__(self, function: Callable[[], None], device: torch.device) -> None:
        self._function = function

    def __call__(self) -> None:
        self._function()


def lists_of(decoder: Decoder, runner: TransformersRunner, request: ListRequest, batch: int) -> list[Any]:
    prompts = random_prompts(_CATALOG, _VOCABULARY, _BATCHES[batch], seed=batch)
    on_device = Prompts(prompts.tokens.to(_DEVICE), prompts.slots.to(_DEVICE), prompts.lengths.to(_DEVICE))
    lists, trace = decoder.bind(runner, request).decode(on_device, torch.Generator().manual_seed(batch))
    return [lists.tokens.tolist(), trace.target_passes.tolist(), trace.accepted.tolist(), trace.attempted.tolist()]


@pytest.fixture
def uncompiled() -> Iterator[None]:
    """Compiling takes minutes, and what is recorded does not depend on it."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.mark.parametrize(
    ("head_size", "dtype"),
    [(8, torch.float32), (16, torch.float32), (16, torch.bfloat16)],
    ids=["plain operations", "kernels", "kernels bfloat16"],
)
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("constrained", [True, False], ids=["catalog", "free"])
@pytest.mark.parametrize("name", _DECODERS)
@pytest.mark.usefixtures("uncompiled")
def test_recorded_decoding_equals_eager_decoding(
    name: str, constrained: bool, sampling: Sampling, head_size: int, dtype: torch.dtype
) -> None:
    model = target(head_size, dtype)
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, constrained=constrained, sampling=sampling, device=_DEVICE)
    results = []
    for recorded in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not recorded:
                patch.setattr(session, "Recording", EagerRecording)
            runner, decoder = TransformersRunner(model), _DECODERS[name](model)
            results.append([lists_of(decoder, runner, request, batch) for batch in range(len(_BATCHES))])
            # Once more in another order: what was recorded for one batch is not disturbed by the others.
            again = [lists_of(decoder, runner, request, batch) for batch in reversed(range(len(_BATCHES)))]
            assert again[::-1] == results[-1]
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("head_size", "dtype"),
    [(8, torch.float32), (16, torch.float32), (16, torch.bfloat16)],
    ids=["plain operations", "kernels", "kernels bfloat16"],
)
@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("look_ahead", [None, 0, 12])
def test_recorded_beam_search_equals_eager_beam_search(
    look_ahead: int | None, renormalise: bool, head_size: int, dtype: torch.dtype
) -> None:
    model = target(head_size, dtype)
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, device=_DEVICE)
    results = []
    for recorded in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not recorded:
                patch.setattr(session, "Recording", EagerRecording)
            runner, decoder = TransformersRunner(model), BeamDecoder(5, look_ahead, renormalise)
            results.append([lists_of(decoder, runner, request, batch) for batch in range(len(_BATCHES))])
            # Once more in another order: what was recorded for one batch is not disturbed by the others.
            again = [lists_of(decoder, runner, request, batch) for batch in reversed(range(len(_BATCHES)))]
            assert again[::-1] == results[-1]
    assert results[0] == results[1]


@pytest.mark.parametrize("look_ahead", [None, 0, 12])
@pytest.mark.parametrize("width", [_K, 200])
def test_recorded_beam_search_ranks_as_on_a_cpu(width: int, look_ahead: int | None) -> None:
    decoder = BeamDecoder(width, look_ahead)
    runner = TransformersRunner(target(16, torch.float64))
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, device=_DEVICE)
    reference = TransformersRunner(target(16, torch.float64).cpu())
    reference_request = ListRequest.build(_CATALOG, _VOCABULARY, _K)
    for batch, histories in enumerate(_BATCHES):
        prompts = random_prompts(_CATALOG, _VOCABULARY, histories, seed=batch)
        expected, _ = BeamDecoder(width).decode(reference, prompts, reference_request, torch.Generator())
        # The second time everything is replayed.
        for _ in range(2):
            assert lists_of(decoder, runner, request, batch)[0] == expected.tokens.tolist()


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", ["forced", "chain", "tree"])
@pytest.mark.usefixtures("uncompiled")
def test_recorded_speculation_equals_autoregression(name: str, sampling: Sampling) -> None:
    model = target(16, torch.float32)
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, sampling=sampling, device=_DEVICE)
    runner, reference, decoder = TransformersRunner(model), AutoregressiveDecoder(), _DECODERS[name](model)
    for batch in range(len(_BATCHES)):
        found, expected = (lists_of(arm, runner, request, batch)[0] for arm in (decoder, reference))
        assert found == expected


@pytest.mark.parametrize("head_size", [8, 16], ids=["plain operations", "kernels"])
@pytest.mark.parametrize("name", [*_DECODERS, "beam"])
@pytest.mark.usefixtures("uncompiled")
def test_packed_prompts_get_the_lists_of_padded_ones(
    name: str, head_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = target(head_size, torch.float32)
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, device=_DEVICE)
    results = []
    for step in (8, 1 << 20):  # so small that these batches are packed, and so large that they are not
        monkeypatch.setattr(session, "_PACKED_STEP", step)
        runner = TransformersRunner(model)
        decoder = BeamDecoder(5) if name == "beam" else _DECODERS[name](model)
        # The second time everything is replayed.
        results += [[lists_of(decoder, runner, request, at)[0] for at in range(len(_BATCHES))] for _ in range(2)]
    assert all(lists == results[0] for lists in results)


@pytest.mark.parametrize("name", ["chain", "tree"])
@pytest.mark.usefixtures("uncompiled")
def test_a_draft_that_is_prepared_again_is_recorded_again(name: str) -> None:
    """What was recorded before runs on tensors that the draft no longer has."""
    model = target(16, torch.float32)
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, device=_DEVICE)
    runner, decoder = TransformersRunner(model), _DECODERS[name](model)
    results = []
    for _ in range(2):
        # Whatever the old tensors held is overwritten, where their memory has been given back.
        torch.full((1 << 22,), 7, device=_DEVICE)
        results.append([lists_of(decoder, runner, request, batch) for batch in range(len(_BATCHES))])
    assert results[0] == results[1]


def test_a_recording_keeps_its_tensors() -> None:
    counts = torch.zeros(1000, device=_DEVICE)

    def copying() -> Callable[[], None]:
        ones = torch.ones(1000, device=_DEVICE)

        def copy() -> None:
            counts.copy_(ones)

        return copy

    recording = Recording(copying(), _DEVICE)
    # Takes the memory of whatever has been given back.
    others = [torch.full((1000,), 7.0, device=_DEVICE) for _ in range(100)]
    counts.zero_()
    recording()
    assert counts.sum() == 1000
    assert len(others) == 100


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", ["autoregressive", "forced", "tree"])
def test_compiled_steps_change_no_list(name: str, sampling: Sampling) -> None:
    model = target(16, torch.float32)
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, sampling=sampling, device=_DEVICE)
    results = []
    for stance in ("default", "force_eager"):
        with torch.compiler.set_stance(stance):
            runner, decoder = TransformersRunner(model), _DECODERS[name](model)
            results.append(lists_of(decoder, runner, request, 0))
    assert results[0] == results[1]
