"""Forced tokens that a kernel adds to a tree, against plain PyTorch."""

import copy
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from padrec.catalog import CatalogTrie, SemanticIDVocabulary
from padrec.decoding import CatalogConstraint, Constraint, ForcedRuns, TokenTree
from padrec.decoding.lists.sampling import Guess
from padrec.decoding.trees.tree_growth import TreeGrowth, TreeShape
from padrec.decoding.trees.tree_operations import TreeOperations
from padrec.decoding.trees.triton_tree_operations import TritonTreeOperations
from tests.decoding.walked_lists import assert_same_tree, tree_on, walked
from tests.kernel_device import DEVICE, needs_gpu
from tests.stubs import random_catalog

_VOCABULARIES: list[dict[str, Any]] = [{}, {"separator": False}, {"shared_codes": True}]


@pytest.mark.parametrize(
    "shape",
    [
        (1, 2, 3),
        (3, 4, 12),
        *(pytest.param(shape, marks=needs_gpu) for shape in [(1, 1, 2), (1, 8, 9), (10, 5, 52), (4, 9, 64)]),
    ],
    ids=str,
)
@pytest.mark.parametrize("vocabulary", _VOCABULARIES, ids=str)
@pytest.mark.parametrize(("leaves", "length"), [(1, 3), (4, 2)])
def test_a_tree_gets_the_forced_tokens_of_plain_pytorch(
    leaves: int, length: int, vocabulary: dict[str, Any], shape: tuple[int, int, int]
) -> None:
    tokens = SemanticIDVocabulary((12, 20, 9), **vocabulary)
    # Sparse, so that the first code often forces the others.
    constraint = CatalogConstraint(CatalogTrie(random_catalog((12, 20, 9), 60), tokens), tokens, 20)
    tree = grown(constraint, [0, 3, 4, 8, 17], shape, seed=3)
    assert assert_extends(tree, constraint, min(leaves, shape[2]), length) > 0


@settings(max_examples=10)
@given(
    data=st.data(),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    n_items=st.integers(1, 12),
    vocabulary=st.sampled_from(_VOCABULARIES),
    length=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_any_tree_gets_the_forced_tokens_of_plain_pytorch(
    data: st.DataObject,
    sizes: list[int],
    n_items: int,
    vocabulary: dict[str, Any],
    length: int,
    seed: int,
) -> None:
    tokens = SemanticIDVocabulary(tuple(sizes), **vocabulary)
    trie = CatalogTrie(random_catalog(sizes, n_items, seed), tokens)
    constraint = CatalogConstraint(trie, tokens, trie.n_leaves)
    end = tokens.list_tokens(trie.n_leaves)
    steps = data.draw(st.lists(st.integers(0, end - 1), min_size=1, max_size=3))
    width, depth = data.draw(st.integers(1, 3)), data.draw(st.integers(0, min(3, end - max(steps))))
    tree = TokenTree.root_only(torch.arange(len(steps)), walked(constraint, steps, seed))
    if depth > 0:
        nodes = data.draw(st.integers(2, 1 + width + (depth - 1) * width * width))
        tree = grown(constraint, steps, (width, depth, nodes), seed)
    assert_extends(tree, constraint, data.draw(st.integers(1, min(4, tree.tokens.shape[1]))), length)


def grown(constraint: CatalogConstraint, steps: list[int], shape: tuple[int, int, int], seed: int) -> TokenTree:
    """A tree of this width, depth and number of nodes, of lists that are that many steps long."""
    (width, depth, _), batch, size = shape, len(steps), constraint.vocabulary.size
    generator = torch.Generator().manual_seed(seed)
    state, plain = walked(constraint, steps, seed), cast(Constraint[Any], constraint)
    growth = TreeGrowth(torch.arange(batch), state, plain, Guess(0.5, 0.0), TreeShape(*shape))
    for level in range(depth):
        growth.grow(torch.randn(batch, 1 if level == 0 else width, size, generator=generator), None)
    return growth.tree()


def assert_extends(tree: TokenTree, constraint: CatalogConstraint, leaves: int, length: int) -> int:
    """The number of forced tokens found."""
    trie = copy.deepcopy(constraint.trie).to(DEVICE)
    there = CatalogConstraint(trie, constraint.vocabulary, constraint.list_length)
    expected = ForcedRuns(leaves, length).extend(tree, cast(Constraint[Any], constraint), TreeOperations())
    assert_same_tree(TritonTreeOperations().add_forced_runs(tree_on(DEVICE, tree), there, leaves, length), expected)
    return int(expected.present[:, tree.tokens.shape[1] :].sum())
