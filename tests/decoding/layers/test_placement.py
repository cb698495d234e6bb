"""Packed rows are read as padded ones are."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import (
    Branches,
    DraftPlan,
    ListRequest,
    ListState,
    Prompts,
    TokenTree,
    TransformersRunner,
    VariableLengthLayout,
)
from tests.stubs import random_catalog, random_network_draft, tiny_target

_VOCABULARY = SemanticIDVocabulary((5, 6, 4))
_LENGTHS = st.lists(st.integers(1, 7), min_size=1, max_size=5)
_BATCHES = [
    pytest.param([3, 1, 7, 2], id="several lengths"),
    pytest.param([1, 1, 12], id="one long row"),
    pytest.param([12, 1, 1], id="one long row first"),
    pytest.param([4, 4, 4], id="equal lengths"),
    pytest.param([1, 1], id="one token each"),
]
_ROOM = 10


@given(lengths=_LENGTHS, padding=st.integers(0, 3), spare=st.integers(0, 5))
def test_packed_rows_follow_one_another(lengths: list[int], padding: int, spare: int) -> None:
    width, n_tokens = max(lengths) + padding, sum(lengths)
    layout = VariableLengthLayout.of(torch.tensor(lengths), width, n_tokens + spare)
    padded = torch.arange(len(lengths) * width).view(-1, 1)
    rows = padded.view(len(lengths), width).tolist()
    packed = layout.pack(padded)
    assert packed.shape == (n_tokens + spare, 1)
    assert packed[:n_tokens, 0].tolist() == [token for row, n in zip(rows, lengths, strict=True) for token in row[:n]]
    assert layout.starts.tolist() == [sum(lengths[:row]) for row in range(len(lengths) + 1)]
    unpacked = layout.unpack(packed).view(len(lengths), width).tolist()
    assert unpacked == [row[:n] + [row[n - 1]] * (width - n) for row, n in zip(rows, lengths, strict=True)]


@given(lengths=_LENGTHS, spare=st.integers(1, 5))
def test_what_follows_the_last_row_is_in_no_unpacked_row(lengths: list[int], spare: int) -> None:
    n_tokens = sum(lengths)
    layout = VariableLengthLayout.of(torch.tensor(lengths), max(lengths), n_tokens + spare)
    packed = torch.zeros(n_tokens + spare)
    packed[n_tokens:] = torch.nan
    assert not layout.unpack(packed).isnan().any()


def prompts_of(lengths: Sequence[int], spare: int | None) -> Prompts:
    """Random prompts, packed with this many tokens to spare; None leaves them padded."""
    generator = torch.Generator().manual_seed(len(lengths))
    tokens = torch.randint(_VOCABULARY.size, (len(lengths), max(lengths)), generator=generator)
    slots = torch.full_like(tokens, _VOCABULARY.other_slot)
    packed = None if spare is None else sum(lengths) + spare
    return Prompts(tokens, slots, torch.tensor(lengths), packed)


def assert_same_rows(found: Tensor, expected: Tensor, lengths: Sequence[int]) -> None:
    """The same values where there is no padding, and finite ones where there is."""
    assert found.shape == expected.shape
    assert found.isfinite().all()
    for row, length in enumerate(lengths):
        torch.testing.assert_close(found[row, :length], expected[row, :length], rtol=0, atol=1e-9)


@pytest.mark.parametrize("lengths", _BATCHES)
@pytest.mark.parametrize("spare", [0, 3])
@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gemma"])
def test_a_packed_prefill_equals_a_padded_one(model_type: str, spare: int, lengths: list[int]) -> None:
    """`gemma` stands for layers that read prompts as they are padded, whatever is asked."""
    model = tiny_target(_VOCABULARY, model_type=model_type, kv_heads=2)
    targets = [TransformersRunner(model).open(len(lengths), max(lengths) + _ROOM) for _ in range(2)]
    prefilled = [target.prefill(prompts_of(lengths, room)) for target, room in zip(targets, (spare, None), strict=True)]
    torch.testing.assert_close(prefilled[0][0], prefilled[1][0], rtol=0, atol=1e-9)
    assert_same_rows(prefilled[0][1], prefilled[1][1], lengths)
    # Later passes find the same keys and values.
    coin, batch, n_nodes = random.Random(0), len(lengths), 5
    parents = [[0] + [coin.randrange(node) for node in range(1, n_nodes)] for _ in range(batch)]
    tokens = torch.randint(_VOCABULARY.size, (batch, n_nodes), generator=torch.Generator().manual_seed(7))
    states = ListState(torch.zeros(batch, n_nodes, dtype=torch.int64))
    tree = TokenTree.from_parents(tokens, torch.tensor(parents), states, n_nodes)
    read = [target.verify(tree) for target in targets]
    for found, expected in zip(*read, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("lengths", _BATCHES)
@pytest.mark.parametrize("n_branches", [0, 3])
def test_branches_behind_packed_prompts_are_read_as_behind_padded_ones(n_branches: int, lengths: list[int]) -> None:
    model = tiny_target(_VOCABULARY, kv_heads=2)
    tokens = torch.randint(_VOCABULARY.size, (len(lengths), n_branches), generator=torch.Generator().manual_seed(7))
    seen = torch.eye(n_branches, dtype=torch.bool).expand(len(lengths), -1, -1)
    branches = Branches(tokens, torch.zeros(n_branches, dtype=torch.long), seen)
    found, expected = (
        TransformersRunner(model)
        .open(len(lengths), max(lengths) + _ROOM)
        .prefill_branches(prompts_of(lengths, spare), branches)
        for spare in (2, None)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("lengths", _BATCHES)
def test_a_draft_begins_behind_packed_prompts_as_behind_padded_ones(lengths: list[int]) -> None:
    model = tiny_target(_VOCABULARY, kv_heads=2)
    batch, prompts = len(lengths), prompts_of(lengths, 2)
    features = torch.randn(batch, max(lengths), 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    first = torch.arange(batch)
    roots = []
    for read in (prompts, replace(prompts, packed=None)):
        runner, draft = TransformersRunner(model), random_network_draft(model, _VOCABULARY)
        request = ListRequest.build(random_catalog((5, 6, 4), 9), _VOCABULARY, 2)
        session = draft.bind(runner, request)(DraftPlan(runner, request, batch, 64, 2, 2))
        session.begin(read, features, first, torch.zeros_like(first))
        assert session._memory.lengths.tolist() == lengths
        roots.append(session._memory.root)
    torch.testing.assert_close(*roots, rtol=0, atol=1e-9)
