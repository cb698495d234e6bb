"""Each step of a decoder layer against loops over plain numbers, and the head against its product."""

import copy
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from padrec.decoding import Placement
from padrec.decoding.layers.layer_operations import (
    Head,
    Heads,
    LayerAttention,
    LayerOperations,
    ResidualStream,
    RMSNorm,
)
from padrec.decoding.layers.placement import visible_columns

_OPERATIONS = LayerOperations()
_COLUMNS = 14
Vector = list[float]


def random_tensor(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normed(x: Vector, norm: RMSNorm) -> Vector:
    factor = 1 / math.sqrt(sum(value * value for value in x) / len(x) + norm.eps)
    return [value * factor * weight for value, weight in zip(x, norm.weight.tolist(), strict=True)]


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def rotated(x: Vector, angles: Vector) -> Vector:
    """Each unit of the first half and the one half a vector away are one point of a plane."""
    points = [complex(*pair) for pair in zip(x[: len(angles)], x[len(angles) :], strict=True)]
    turned = [point * complex(math.cos(turn), math.sin(turn)) for point, turn in zip(points, angles, strict=True)]
    return [point.real for point in turned] + [point.imag for point in turned]


def silu(x: float) -> float:
    return x / (1 + math.exp(-x))


def placement_of(lengths: list[int], width: int, first: int, tree: bool, seed: int = 0) -> Placement:
    """Tokens at depths of their own; with `tree`, of random ancestors among all that follows the past."""
    coin = random.Random(seed)
    depths = torch.tensor([[coin.randrange(9) for _ in range(width)] for _ in lengths])
    if not tree:
        return Placement(torch.tensor(lengths), depths)
    ancestors = torch.zeros(len(lengths), width, first + width + 1, dtype=torch.bool)
    for row in ancestors:
        for token, sees in enumerate(row):
            own = first + token
            sees[own] = True
            sees[:own] = torch.tensor([coin.random() < 0.5 for _ in range(own)], dtype=torch.bool)
    return Placement(torch.tensor(lengths), depths, first, ancestors)


def plainly_visible(placement: Placement, row: int, token: int) -> list[int]:
    """The columns that a token sees."""
    past = int(placement.lengths[row])
    if placement.ancestors is None:
        return list(range(past + token + 1))
    return [*range(past), *(past + int(at) for at in placement.ancestors[row, token].nonzero().flatten())]


@pytest.mark.parametrize("has_norm", [True, False], ids=["norm", "plain"])
@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "unbiased"])
@pytest.mark.parametrize("gated", [True, False], ids=["gated", "linear"])
def test_a_linear_map_of_the_stream(has_norm: bool, has_bias: bool, gated: bool) -> None:
    n_tokens, n_in, n_out = 3, 5, 4
    rows = 2 * n_out if gated else n_out
    x, weight = random_tensor(n_tokens, n_in, seed=0), random_tensor(rows, n_in, seed=1)
    norm = RMSNorm(random_tensor(n_in, seed=2), 1e-3) if has_norm else None
    bias = random_tensor(rows, seed=3) if has_bias else None
    found = _OPERATIONS.linear(ResidualStream(x, norm), weight, bias, gated)
    expected = []
    for inputs in x.tolist():
        read = inputs if norm is None else normed(inputs, norm)
        y = [dot(read, row) + (0.0 if bias is None else float(bias[at])) for at, row in enumerate(weight.tolist())]
        if gated:
            y = [silu(gate) * up for gate, up in zip(y[:n_out], y[n_out:], strict=True)]
        expected.append(y)
    # The norm itself is taken in float32, as transformers takes it.
    torch.testing.assert_close(found, torch.tensor(expected, dtype=x.dtype), rtol=0, atol=1e-5 if has_norm else 1e-12)


@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "unbiased"])
def test_a_linear_map_is_added_to_the_stream(has_bias: bool) -> None:
    values, x, weight = (random_tensor(*shape, seed=seed) for seed, shape in enumerate([(3, 4), (3, 5), (4, 5)]))
    bias = random_tensor(4, seed=3) if has_bias else None
    norm = RMSNorm(random_tensor(4, seed=4), 1e-3)
    found = _OPERATIONS.add(ResidualStream(values), x, weight, bias, norm)
    sums = [
        [value + dot(inputs, row) for value, row in zip(before, weight.tolist(), strict=True)]
        for before, inputs in zip(values.tolist(), x.tolist(), strict=True)
    ]
    expected = torch.tensor(sums, dtype=x.dtype) + (0.0 if bias is None else bias)
    torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-12)
    behind_norm = torch.tensor([normed(row, norm) for row in expected.tolist()], dtype=x.dtype)
    torch.testing.assert_close(_OPERATIONS.normed(found), behind_norm, rtol=0, atol=1e-5)


@pytest.mark.parametrize("has_norm", [True, False], ids=["norm", "plain"])
@pytest.mark.parametrize(("first", "tree"), [(0, False), (0, True), (3, True)], ids=["chain", "tree", "after a tree"])
@pytest.mark.parametrize(("n_queries", "n_keys"), [(4, 4), (4, 2), (3, 1)])
def test_queries_and_keys_are_rotated_and_stored_where_they_stand(
    has_norm: bool, first: int, tree: bool, n_queries: int, n_keys: int
) -> None:
    batch, width, size = 2, 3, 6
    heads = Heads(n_queries, n_keys, size, 1.0)
    placement = placement_of([5, 2], width, first, tree)
    qkv = random_tensor(batch * width, (n_queries + 2 * n_keys) * size, seed=0)
    norms = (RMSNorm(random_tensor(size, seed=1), 1e-3), RMSNorm(random_tensor(size, seed=2), 1e-2))
    angles = random_tensor(_COLUMNS + 9, size // 2, seed=3)
    rotary = (angles.cos().repeat(1, 2), angles.sin().repeat(1, 2))
    before = random_tensor(2, batch, n_keys, _COLUMNS, size, seed=4)
    cache = LayerAttention(heads, before[0].clone(), before[1].clone(), rotary, norms if has_norm else None)
    queries = _OPERATIONS.rotate_and_store(qkv, cache, placement)
    expected_queries = torch.empty(batch, width, n_queries, size, dtype=torch.float64)
    keys, values = before[0].clone(), before[1].clone()
    for row in range(batch):
        for token in range(width):
            vectors = qkv[row * width + token].view(-1, size).tolist()
            column = int(placement.lengths[row]) + first + token
            turns = angles[placement.lengths[row] + placement.depths[row, token]].tolist()
            for head, vector in enumerate(vectors):
                if head >= n_queries + n_keys:
                    values[row, head - n_queries - n_keys, column] = torch.tensor(vector, dtype=torch.float64)
                    continue
                read = normed(vector, norms[0 if head < n_queries else 1]) if has_norm else vector
                found = torch.tensor(rotated(read, turns), dtype=torch.float64)
                if head < n_queries:
                    expected_queries[row, token, head] = found
                else:
                    keys[row, head - n_queries, column] = found
    tolerance = 1e-5 if has_norm else 1e-12
    torch.testing.assert_close(queries, expected_queries, rtol=0, atol=tolerance)
    torch.testing.assert_close(cache.keys, keys, rtol=0, atol=tolerance)
    torch.testing.assert_close(cache.values, values, rtol=0, atol=0)


@pytest.mark.parametrize(("first", "tree"), [(0, False), (0, True), (3, True)], ids=["chain", "tree", "after a tree"])
@pytest.mark.parametrize(("n_queries", "n_keys"), [(4, 4), (4, 2), (3, 1)])
def test_attention_reads_what_a_token_sees_and_nothing_else(
    first: int, tree: bool, n_queries: int, n_keys: int
) -> None:
    batch, width, size = 2, 3, 4
    heads = Heads(n_queries, n_keys, size, 0.7)
    placement = placement_of([5, 2], width, first, tree, seed=1)
    queries = random_tensor(batch, width, n_queries, size, seed=0)
    rotary = random_tensor(_COLUMNS, size, seed=2), random_tensor(_COLUMNS, size, seed=3)
    keys, values = random_tensor(2, batch, n_keys, _COLUMNS, size, seed=1)
    cache = LayerAttention(heads, keys, values, rotary)
    found = _OPERATIONS.attention(queries, cache, placement)
    expected = torch.empty(batch, width, n_queries, size, dtype=torch.float64)
    for row in range(batch):
        for token in range(width):
            seen = plainly_visible(placement, row, token)
            for head in range(n_queries):
                group = head // (n_queries // n_keys)
                query = queries[row, token, head].tolist()
                scores = [0.7 * dot(query, cache.keys[row, group, column].tolist()) for column in seen]
                weights = [math.exp(score - max(scores)) for score in scores]
                expected[row, token, head] = sum(
                    weight / sum(weights) * cache.values[row, group, column]
                    for weight, column in zip(weights, seen, strict=True)
                )
    torch.testing.assert_close(found, expected.view(batch * width, -1), rtol=0, atol=1e-12)


@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=3),
    width=st.integers(1, 4),
    first=st.integers(0, 3),
    tree=st.booleans(),
    spare=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_visible_columns_are_the_past_and_the_ancestors(
    lengths: list[int], width: int, first: int, tree: bool, spare: int, seed: int
) -> None:
    placement = placement_of(lengths, width, first, tree, seed)
    columns = max(lengths) + placement.first + width + spare
    found = visible_columns(placement, columns)
    assert found.shape == (len(lengths), width, columns)
    for row in range(len(lengths)):
        for token in range(width):
            assert found[row, token].nonzero().flatten().tolist() == plainly_visible(placement, row, token)


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    n_branches=st.integers(1, 4),
    spare=st.integers(0, 3),
    seed=st.integers(0, 99),
)
def test_branches_see_all_of_their_prompt_and_their_ancestors(
    lengths: list[int], n_branches: int, spare: int, seed: int
) -> None:
    tree, chain = placement_of([0] * len(lengths), n_branches, 0, True, seed).ancestors, torch.tensor(lengths)
    assert tree is not None
    width = max(lengths) + n_branches
    placement = Placement(torch.zeros_like(chain), torch.zeros(len(chain), width), 0, tree, chain=chain)
    found = visible_columns(placement, width + spare)
    for row, length in enumerate(lengths):
        for token in range(length):
            assert found[row, token].nonzero().flatten().tolist() == list(range(token + 1))
        for branch in range(n_branches):
            after = [length + column for column in tree[row, branch].nonzero().flatten().tolist()]
            assert found[row, length + branch].nonzero().flatten().tolist() == [*range(length), *after]


@settings(max_examples=50)
@given(data=st.data(), n_layers=st.integers(1, 2), batch=st.integers(1, 3))
def test_a_kept_path_lies_right_behind_the_past(data: st.DataObject, n_layers: int, batch: int) -> None:
    width = data.draw(st.integers(1, 5))
    columns = st.lists(st.integers(0, 7), min_size=width, max_size=width, unique=True).map(sorted)
    paths = [data.draw(columns) for _ in range(batch)]
    lengths = [data.draw(st.integers(0, _COLUMNS - 8)) for _ in range(batch)]
    before = random_tensor(2, n_layers, batch, 2, _COLUMNS, 3, seed=0)
    keys, values = before.clone()
    _OPERATIONS.keep(keys, values, torch.tensor(lengths), torch.tensor(paths))
    for row, (past, path) in enumerate(zip(lengths, paths, strict=True)):
        order = list(range(_COLUMNS))
        order[past : past + width] = [past + column for column in path]
        for found, was in zip((keys, values), before, strict=True):
            assert torch.equal(found[:, row], was[:, row][:, :, order])


@pytest.mark.parametrize("mixed", [False, True], ids=["plain", "mixed precision"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_logits_are_not_rounded_to_the_precision_of_the_head(dtype: torch.dtype, bias: bool, mixed: bool) -> None:
    if mixed and dtype != torch.bfloat16:
        pytest.skip("mixed precision rounds what is wider")
    torch.manual_seed(0)
    head, outputs = nn.Linear(32, 50, bias=bias).to(dtype), torch.randn(2, 3, 32).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        found = Head(head, LayerOperations())(outputs)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = copy.deepcopy(head).double()(outputs.double())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_another_head_keeps_its_own_product() -> None:
    outputs = torch.randn(2, 3, 8, dtype=torch.bfloat16)
    assert torch.equal(Head(nn.Identity(), LayerOperations())(outputs), outputs.float())
