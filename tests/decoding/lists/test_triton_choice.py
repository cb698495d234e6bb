"""The target's choices by a kernel, against plain PyTorch."""

import copy
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from padrec.catalog import CatalogTrie, SemanticIDVocabulary
from padrec.decoding import CatalogConstraint, Choice, ListState, Sampling
from padrec.decoding.lists.list_operations import ListOperations
from padrec.decoding.lists.triton_choice import choose_in_catalog
from tests.decoding.walked_lists import assert_same_states, states_on, walked
from tests.kernel_device import DEVICE, DTYPES
from tests.stubs import random_catalog

_VOCABULARIES: list[dict[str, Any]] = [{}, {"separator": False}, {"shared_codes": True}]


def selected(states: ListState, part: tuple[slice, slice]) -> ListState:
    return replace(states, **{field.name: getattr(states, field.name)[part] for field in fields(states)})


@pytest.mark.parametrize("vocabulary", _VOCABULARIES, ids=str)
@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.3])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", [(4, 5, 3), (300, 5, 3)], ids=str)
def test_the_target_chooses_as_in_plain_pytorch(
    sizes: tuple[int, ...], dtype: torch.dtype, temperature: float, vocabulary: dict[str, Any]
) -> None:
    tokens = SemanticIDVocabulary(sizes, **vocabulary)
    trie = CatalogTrie(random_catalog(sizes, 40), tokens)
    # Lists of all items, so that more and more of what the trie holds is used up.
    constraint = CatalogConstraint(trie, tokens, trie.n_leaves)
    end = tokens.list_tokens(trie.n_leaves)
    steps = [0, 1, 2, 3, 4, end // 3, end // 2, end - 9, end - 3, end - 2, end - 1, end]
    depths = torch.tensor([[0, 1, 1, 2], [0, 2, 1, 1], [2, 1, 0, 0]])
    assert_chooses(constraint, steps, depths, Sampling(temperature), dtype, seed=0)


@settings(max_examples=12)
@given(
    data=st.data(),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    n_items=st.integers(1, 12),
    temperature=st.sampled_from([0.0, 0.5, 1.0]),
    vocabulary=st.sampled_from(_VOCABULARIES),
    seed=st.integers(0, 1000),
)
def test_the_target_chooses_as_in_plain_pytorch_in_any_catalog(
    data: st.DataObject,
    sizes: list[int],
    n_items: int,
    temperature: float,
    vocabulary: dict[str, Any],
    seed: int,
) -> None:
    tokens = SemanticIDVocabulary(tuple(sizes), **vocabulary)
    trie = CatalogTrie(random_catalog(sizes, n_items, seed), tokens)
    n_listed = data.draw(st.integers(1, trie.n_leaves))
    end = tokens.list_tokens(n_listed)
    batch, n_nodes = data.draw(st.sampled_from([(1, 1), (1, 3), (3, 1), (2, 2)]))
    steps = data.draw(st.lists(st.integers(0, end), min_size=batch * n_nodes, max_size=batch * n_nodes))
    depths = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=len(steps), max_size=len(steps))))
    constraint = CatalogConstraint(trie, tokens, n_listed)
    assert_chooses(constraint, steps, depths.view(batch, n_nodes), Sampling(temperature), torch.float32, seed)


def assert_chooses(
    constraint: CatalogConstraint,
    steps: list[int],
    depths: torch.Tensor,
    sampling: Sampling,
    dtype: torch.dtype,
    seed: int,
) -> None:
    """For nodes `[B, N]` whose lists are that many steps long."""
    vocabulary, shape = constraint.vocabulary, depths.shape
    there = CatalogConstraint(copy.deepcopy(constraint.trie).to(DEVICE), vocabulary, constraint.list_length)
    flat = walked(constraint, steps, seed)
    states = replace(flat, **{field.name: getattr(flat, field.name).unflatten(0, shape) for field in fields(flat)})
    batch, n_nodes = shape
    choice = sampling.choice(torch.tensor([5, -7, 11])[:batch], torch.tensor([0, 3, 60])[:batch], 2, vocabulary.size)
    known = Choice(sampling, None if choice.noise is None else choice.noise.to(DEVICE))
    # A part of a wider product.
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(*shape, vocabulary.size + 5, generator=generator).to(dtype).to(DEVICE)[..., : vocabulary.size]
    logits[:, min(1, n_nodes - 1)] = 0  # of equal logits the first is chosen, where there is no noise
    plain: Any = constraint
    expected = ListOperations().choose(logits.double().cpu(), states, depths, choice, plain)
    found = choose_in_catalog(logits, states_on(DEVICE, states), depths.to(DEVICE), known, there)
    is_open = plain.continuations(states).free.any(-1)
    assert is_open.sum() == sum(at < vocabulary.list_tokens(constraint.list_length) for at in steps)
    assert torch.equal(found.tokens.cpu()[is_open], expected.tokens[is_open])
    assert ((found.tokens >= 0) & (found.tokens < vocabulary.size)).all()
    assert found.log_probs.dtype == torch.float32
    log_probs = found.log_probs.cpu()[is_open].double(), expected.log_probs[is_open]
    torch.testing.assert_close(*log_probs, atol=1e-5, rtol=1e-5)
    assert_same_states(found.states, expected.states, is_open)
    # Beside no other node the choice is the very same.
    for row, node in {(0, 0), (batch // 2, n_nodes - 1), (batch - 1, n_nodes // 2)}:
        part = slice(row, row + 1), slice(node, node + 1)
        noise = Choice(sampling, None if known.noise is None else known.noise[part[0]])
        alone = choose_in_catalog(
            logits[part], states_on(DEVICE, selected(states, part)), depths[part].to(DEVICE), noise, there
        )
        assert torch.equal(alone.tokens, found.tokens[part])
        assert torch.equal(alone.log_probs, found.log_probs[part])
