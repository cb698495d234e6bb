"""Rounds that a kernel settles, against plain PyTorch."""

from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import (
    Constraint,
    DynamicTree,
    ForcedRuns,
    ListBuffer,
    ListRequest,
    RootOnly,
    TokenTree,
    TreeExpansion,
)
from padrec.decoding.lists.chosen_tokens import ChosenTokens
from padrec.decoding.lists.decoding_trace import RoundStatistics
from padrec.decoding.lists.sampling import Guess
from padrec.decoding.rounds.round_operations import RoundOperations
from padrec.decoding.rounds.triton_acceptance import accept_in_kernel
from padrec.decoding.trees.tree_growth import TreeGrowth
from padrec.decoding.trees.tree_operations import TreeOperations
from tests.decoding.walked_lists import assert_same_states, states_on, tree_on, walked
from tests.kernel_device import DEVICE, needs_gpu
from tests.stubs import random_catalog

_SIZES = (12, 20, 9)
_STEPS = [0, 3, 8, 17, 4]


def request_on(device: torch.device | str, constrained: bool) -> ListRequest:
    catalog, vocabulary = random_catalog(_SIZES, 60), SemanticIDVocabulary(_SIZES)
    return ListRequest.build(catalog, vocabulary, 6, constrained=constrained, device=device)


def proposed(request: ListRequest, expansion: TreeExpansion, width: int, seed: int) -> TokenTree:
    """The tree of a random draft, with forced tokens where there is a catalog."""
    constraint, state = request.constraint, walked(request.constraint, _STEPS)
    root = torch.tensor([1, 5, 6, 7, 8])
    if expansion.depth == 0:
        return TokenTree.root_only(root, state)
    generator = torch.Generator().manual_seed(seed)
    growth = TreeGrowth(root, state, constraint, Guess(0.5, 0.0), width, expansion.nodes)
    for level in range(expansion.depth):
        logits = torch.randn(5, 1 if level == 0 else width, request.vocabulary.size, generator=generator)
        growth.grow(logits, None)
    return ForcedRuns(2, 2 if constraint.longest_run > 0 else 0).extend(growth.tree(), constraint, TreeOperations())


def chosen_of(tree: TokenTree, constraint: Constraint[Any], n_tokens: int, agrees: float, seed: int) -> ChosenTokens:
    """What a target may choose at every node, that often the token of one of its children."""
    generator = torch.Generator().manual_seed(seed)
    allowed = constraint.allowed(tree.states)
    if allowed is None:
        allowed = torch.ones(*tree.tokens.shape, n_tokens, dtype=torch.bool)
    # After the end of a list anything is chosen.
    chances = (allowed | ~allowed.any(-1, keepdim=True)).flatten(0, 1).float()
    tokens = torch.multinomial(chances, 1, generator=generator).view(tree.tokens.shape)
    agreed = torch.rand(tree.tokens.shape, generator=generator) < agrees
    for row, node in (agreed & tree.present).nonzero().tolist():
        if node > 0:
            tokens[row, tree.parents[row, node]] = tree.tokens[row, node]
    log_probs = torch.randn(tokens.shape, generator=generator)
    return ChosenTokens(tokens, log_probs, constraint.advance(tree.states, tokens))


def lists_at(request: ListRequest, lengths: list[int], device: torch.device) -> ListBuffer:
    """Lists of which that much is written; the last one is finished."""
    lists = ListBuffer(request, len(lengths), device)
    lists.clear(torch.zeros_like(lists.keys))
    lists.lengths.copy_(torch.tensor(lengths))
    lists.finished[-1] = True
    return lists


@pytest.mark.parametrize("agrees", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize(
    "shape", [(1, 1, 2), (1, 8, 9), (3, 4, 12), pytest.param((4, 9, 64), marks=needs_gpu)], ids=str
)
def test_a_round_is_accepted_as_in_plain_pytorch(shape: tuple[int, int, int], constrained: bool, agrees: float) -> None:
    width, depth, nodes = shape
    n_tokens = request_on("cpu", constrained).n_tokens
    assert_accepts(DynamicTree(depth, width, nodes), constrained, agrees, [0, 3, 8, n_tokens - 2, 4], seed=depth)


@pytest.mark.parametrize("constrained", [False, True])
def test_a_round_without_proposals_is_accepted_as_in_plain_pytorch(constrained: bool) -> None:
    n_tokens = request_on("cpu", constrained).n_tokens
    assert_accepts(RootOnly(), constrained, 1.0, [0, 3, 8, n_tokens - 1, 4], seed=0)


@settings(max_examples=15)
@given(
    width=st.integers(1, 3),
    depth=st.integers(1, 4),
    nodes=st.integers(2, 15),
    constrained=st.booleans(),
    agrees=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    written=st.lists(st.integers(0, 22), min_size=5, max_size=5),
    seed=st.integers(0, 1000),
)
@example(width=1, depth=1, nodes=2, constrained=False, agrees=1.0, written=[22] * 5, seed=0)
def test_any_round_is_accepted_as_in_plain_pytorch(
    width: int, depth: int, nodes: int, constrained: bool, agrees: float, written: list[int], seed: int
) -> None:
    assert_accepts(DynamicTree(depth, width, nodes), constrained, agrees, written, seed)


def assert_accepts(expansion: TreeExpansion, constrained: bool, agrees: float, written: list[int], seed: int) -> None:
    """After that many tokens that are `written`."""
    request, there = request_on("cpu", constrained), request_on(DEVICE, constrained)
    vocabulary = request.vocabulary
    tree = proposed(request, expansion, getattr(expansion, "width", 1), seed)
    chosen = chosen_of(tree, request.constraint, vocabulary.size, agrees, seed)
    if not constrained:
        chosen.tokens[2, 0] = vocabulary.eos_token
    found_lists, lists = lists_at(there, written, DEVICE), lists_at(request, written, torch.device("cpu"))
    counts, found_counts = (
        RoundStatistics(len(written), vocabulary.n_slot_states, tree.max_depth, x.lengths.device)
        for x in (lists, found_lists)
    )
    expected = RoundOperations().accept(tree, chosen, lists, counts, expansion)
    moved = ChosenTokens(chosen.tokens.to(DEVICE), chosen.log_probs.to(DEVICE), states_on(DEVICE, chosen.states))
    found = accept_in_kernel(tree_on(DEVICE, tree), moved, found_lists, found_counts, expansion)
    assert torch.equal(found.path.cpu(), expected.path)
    assert torch.equal(found.count.cpu(), expected.count)
    kept = torch.arange(tree.max_depth + 1) < expected.count[:, None]
    assert torch.equal(found.emitted.cpu()[kept], expected.emitted[kept])
    assert torch.equal(found.slots.cpu()[kept], expected.slots[kept])
    for name in ("lengths", "finished"):
        assert torch.equal(getattr(found_lists, name).cpu(), getattr(lists, name)), name
    assert torch.equal(found_lists.last.cpu()[~lists.finished], lists.last[~lists.finished])
    # What stands after a list is never read.
    assert torch.equal(found_lists.tokens.cpu()[:, :-1], lists.tokens[:, :-1])
    assert torch.equal(found_lists.log_probs.cpu()[:, :-1], lists.log_probs[:, :-1])
    assert_same_states(found_lists.state, lists.state, ~lists.finished)
    for one, other in zip(found_counts.counts, counts.counts, strict=True):
        assert torch.equal(one.cpu(), other)
