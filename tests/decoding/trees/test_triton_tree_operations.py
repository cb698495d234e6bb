"""Trees that kernels grow, against those that plain PyTorch grows."""

import copy
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from padrec.catalog import CatalogTrie, SemanticIDVocabulary
from padrec.decoding import CatalogConstraint, Constraint, FreeDecoding
from padrec.decoding.lists.sampling import Guess
from padrec.decoding.trees.tree_growth import TreeGrowth, TreeShape
from padrec.decoding.trees.triton_tree_operations import TritonGrowth
from tests.decoding.walked_lists import assert_same_tree, states_on, walked
from tests.kernel_device import DEVICE, needs_gpu
from tests.stubs import random_catalog

_VOCABULARIES: list[dict[str, Any]] = [{}, {"separator": False}, {"shared_codes": True}]


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 2),
        (1, 2, 3),
        (3, 4, 12),
        *(pytest.param(shape, marks=needs_gpu) for shape in [(1, 8, 9), (10, 5, 52), (4, 9, 64)]),
    ],
    ids=str,
)
@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("vocabulary", _VOCABULARIES, ids=str)
# Without noise logits of few bits are often equal, and which of them comes first is open.
@pytest.mark.parametrize(
    ("noisy", "dtype"),
    [(False, torch.float32), (True, torch.float32), pytest.param(True, torch.bfloat16, marks=needs_gpu)],
    ids=str,
)
def test_a_tree_grows_as_in_plain_pytorch(
    shape: tuple[int, int, int], constrained: bool, vocabulary: dict[str, Any], noisy: bool, dtype: torch.dtype
) -> None:
    tokens = SemanticIDVocabulary((12, 20, 9), **vocabulary)
    constraint: CatalogConstraint | FreeDecoding = FreeDecoding(tokens)
    if constrained:
        # Far from the end of a list: after it nothing may follow, and whatever is found there is never used.
        constraint = CatalogConstraint(CatalogTrie(random_catalog((12, 20, 9), 60), tokens), tokens, 20)
    for staying in {False, noisy}:
        assert_grows(constraint, [0, 3, 8, 17], shape, noisy, dtype, seed=3, staying=staying)
    if isinstance(constraint, CatalogConstraint):
        excluding = constraint.excluding(4)
        excluding.exclude(torch.tensor([[-1] * 20, list(range(20)), list(range(0, 40, 2)), [3] + [-1] * 19]))
        assert_grows(excluding, [0, 3, 8, 17], shape, noisy, dtype, seed=3)


@settings(max_examples=10)
@given(
    data=st.data(),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    n_items=st.integers(1, 12),
    constrained=st.booleans(),
    vocabulary=st.sampled_from(_VOCABULARIES),
    noisy=st.booleans(),
    staying=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_tree_of_any_shape_grows_as_in_plain_pytorch(
    data: st.DataObject,
    sizes: list[int],
    n_items: int,
    constrained: bool,
    vocabulary: dict[str, Any],
    noisy: bool,
    staying: bool,
    seed: int,
) -> None:
    tokens = SemanticIDVocabulary(tuple(sizes), **vocabulary)
    width, depth, end = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)), 12
    constraint: CatalogConstraint | FreeDecoding = FreeDecoding(tokens)
    if constrained:
        trie = CatalogTrie(random_catalog(sizes, n_items, seed), tokens)
        constraint = CatalogConstraint(trie, tokens, trie.n_leaves)
        end = tokens.list_tokens(trie.n_leaves)
        depth = min(depth, end)
    nodes = data.draw(st.integers(2, 1 + width + (depth - 1) * width * width))
    steps = data.draw(st.lists(st.integers(0, end - depth), min_size=1, max_size=2))
    assert_grows(constraint, steps, (width, depth, nodes), noisy, torch.float32, seed, staying=staying)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_not_finite_grow_the_tree_of_plain_pytorch(value: float) -> None:
    tokens = SemanticIDVocabulary((12, 20, 9))
    constraint = CatalogConstraint(CatalogTrie(random_catalog((12, 20, 9), 60), tokens), tokens, 20)
    for known in (constraint, FreeDecoding(tokens)):
        assert_grows(known, [0, 3, 8], (2, 3, 8), True, torch.float32, seed=3, spoilt=value)


def assert_grows(
    constraint: CatalogConstraint | FreeDecoding,
    steps: list[int],
    shape: tuple[int, int, int],
    noisy: bool,
    dtype: torch.dtype,
    seed: int,
    spoilt: float | None = None,
    staying: bool = False,
) -> None:
    """From lists that are that many steps long, a tree of this width, depth and number of nodes.

    After `spoilt` nodes, the first of the last depth and all of the last row, all or one of the logits are that number.
    """
    (width, depth, _), batch, size = shape, len(steps), constraint.vocabulary.size
    there = constraint
    if isinstance(constraint, CatalogConstraint):
        trie = copy.deepcopy(constraint.trie).to(DEVICE)
        there = CatalogConstraint(trie, constraint.vocabulary, constraint.list_length)
        there.available = None if constraint.available is None else constraint.available.to(DEVICE)
    generator = torch.Generator().manual_seed(seed)
    state, root = walked(constraint, steps, seed), torch.randint(size, (batch,), generator=generator)
    guess = Guess(0.5, 2.0 if noisy else 0.0)
    plain = TreeGrowth(root, state, cast(Constraint[Any], constraint), guess, TreeShape(*shape))
    arrived = torch.zeros(batch, dtype=torch.int32, device=DEVICE)
    found = TritonGrowth(root.to(DEVICE), states_on(DEVICE, state), there, guess, TreeShape(*shape), arrived)
    noise = torch.randn(batch, depth, size, generator=generator) if noisy else None
    for level in range(depth):
        n_nodes = 1 if level == 0 else width
        # Some rows stay, but none for the children of the root.
        stays = torch.rand(batch, generator=generator) < 0.3 if staying and level > 0 else None
        # A part of a wider product, as head and fusion are.
        logits = torch.randn(batch, n_nodes, size + 5, generator=generator).to(dtype)
        if spoilt is not None:
            logits[-1] = spoilt
            if level == depth - 1:
                logits[:, 0, 7] = spoilt
        known = None if noise is None else noise[:, level]
        there_stays = None if stays is None else stays.to(DEVICE)
        found.grow(logits.to(DEVICE)[..., :size], None if known is None else known.to(DEVICE), there_stays)
        plain.grow(logits[..., :size].double(), known, stays)
        if (
            isinstance(constraint, FreeDecoding) and width <= size and spoilt is None
        ):  # else some may only fill the frontier up
            for name in ("frontier", "parents", "slots"):
                assert torch.equal(getattr(found, name).cpu(), getattr(plain, name)), name
    assert not arrived.any()
    assert_same_tree(found.tree(), plain.tree())
