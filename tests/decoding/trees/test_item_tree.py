"""Trees with one draft pass an item: grown as dynamic trees, by drafts of which rows of a batch may be in any slot."""

from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from padrec.catalog import CatalogTrie, InputError, SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    CatalogConstraint,
    CatalogDraft,
    Draft,
    DynamicTree,
    FreeDecoding,
    ItemTree,
    ListRequest,
    Sampling,
    SpeculativeDecoder,
    TransformersRunner,
    TreeContext,
)
from padrec.decoding.rounds import rounds
from padrec.decoding.trees.tree_operations import TreeOperations
from padrec.decoding.trees.triton_tree_operations import TritonTreeOperations
from padrec.drafts import ItemEAGLE, feature_draft
from padrec.drafts.draft_operations import DraftOperations
from padrec.drafts.triton_draft_operations import TritonDraftOperations
from tests.decoding.trees.test_dynamic_tree import choice_of, paths_of, reference_tree
from tests.decoding.walked_lists import walked
from tests.kernel_device import DEVICE
from tests.stubs import (
    ContraryDraft,
    ItemPathSteps,
    ItemStub,
    OracleDraft,
    RandomDraft,
    UnboundTree,
    random_catalog,
    random_network_draft,
    random_prompts,
    tiny_target,
)

_SIZES, _K = (5, 6, 4), 3
_CATALOG = random_catalog(_SIZES, 30)
_VOCABULARIES: list[dict[str, Any]] = [{}, {"separator": False}, {"shared_codes": True}]


@settings(max_examples=40)
@given(
    depth=st.integers(1, 12),
    width=st.integers(1, 4),
    nodes=st.integers(2, 40),
    vocabulary=st.sampled_from(_VOCABULARIES),
    constrained=st.booleans(),
    temperature=st.sampled_from([0.0, 1.0]),
    steps=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    seed=st.integers(0, 10_000),
)
def test_each_row_s_tree_is_the_dynamic_tree_that_reaches_as_deep(
    depth: int,
    width: int,
    nodes: int,
    vocabulary: dict[str, Any],
    constrained: bool,
    temperature: float,
    steps: list[int],
    seed: int,
) -> None:
    tokens = SemanticIDVocabulary(_SIZES, **vocabulary)
    constraint: Any = FreeDecoding(tokens)
    if constrained:
        constraint = CatalogConstraint(CatalogTrie(_CATALOG, tokens), tokens, 10)
    length = tokens.item_length
    expansion = ItemTree(depth, width, nodes, 0.5, length)
    batch, state = len(steps), walked(constraint, steps, seed)
    drafted, choice = ItemPathSteps(batch, tokens.size, seed), choice_of(temperature, batch, expansion.depth, tokens)
    root = torch.ones(batch, dtype=torch.long)
    tree = expansion.expand(TreeContext(root, state, constraint, choice, drafted, TreeOperations()))
    assert tree.tokens.shape == (batch, expansion.nodes)
    reach = expansion.reach(state.slot).tolist()
    assert all(depth - length < deepest <= depth for deepest in reach)
    for row, deepest in enumerate(reach):
        dynamic = DynamicTree(deepest, width, nodes, 0.5)
        own = state.map(lambda value, row=row: value[row : row + 1])
        expected = reference_tree(dynamic, drafted, row, constraint, choice, own)
        present = tree.present[row].tolist()
        paths = {path: node for node, path in enumerate(paths_of(tree, row)) if present[node]}
        assert paths.keys() == expected.keys()
        for path, node in paths.items():
            assert float(tree.scores[row, node]) == pytest.approx(float(expected[path]), abs=1e-5)
            assert int(tree.depths[row, node]) == len(path)
    # A pass at the root, and one at the first code of each item after it.
    to_first = [max(1, length - slot) for slot in state.slot.tolist()]
    n_passes = expansion.draft_passes
    assert drafted.passes == [[first - 1 + item * length for first in to_first] for item in range(n_passes - 1)]
    assert all((slots[slots > 0] < length).all() for slots in drafted.slots)
    assert len(drafted.slots) == depth - n_passes


@pytest.mark.parametrize("constrained", [True, False], ids=["catalog", "free"])
@pytest.mark.parametrize("vocabulary", _VOCABULARIES, ids=str)
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7, top_k=6, top_p=0.9)], ids=["greedy", "sampled"])
def test_one_pass_an_item_equals_autoregression(
    sampling: Sampling, vocabulary: dict[str, Any], constrained: bool
) -> None:
    tokens = SemanticIDVocabulary(_SIZES, **vocabulary)
    model, length = tiny_target(tokens), tokens.item_length
    runner, prompts = TransformersRunner(model), random_prompts(_CATALOG, tokens, [3, 0, 1, 5, 2])
    request = ListRequest.build(_CATALOG, tokens, _K, constrained=constrained, sampling=sampling)
    expected, _ = AutoregressiveDecoder().bind(runner, request).decode(prompts, torch.Generator().manual_seed(0))
    oracle, contrary = OracleDraft(expected.tokens, tokens), ContraryDraft(expected.tokens, tokens)
    network = random_network_draft(model, tokens, architecture=ItemEAGLE(n_heads=length - 1, rank=8))
    drafts: list[Draft] = [*(ItemStub(one, length) for one in (oracle, contrary, RandomDraft(tokens))), network]
    for draft in drafts:
        for depth, forced_tokens in ((2, True), (length, True), (2 * length, False), (2 * length + 1, True)):
            tree = ItemTree(depth, 3, 14, item_length=length)
            expansion = UnboundTree(tree) if draft is drafts[1] else tree
            session = SpeculativeDecoder(draft, expansion, forced_tokens).bind(runner, request)
            for _ in range(2):
                found, _ = session.decode(prompts, torch.Generator().manual_seed(0))
                assert torch.equal(found.tokens, expected.tokens)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0)], ids=["greedy", "sampled"])
def test_kernels_propose_what_plain_pytorch_proposes(sampling: Sampling, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = SemanticIDVocabulary(_SIZES)
    model = tiny_target(tokens, dtype=torch.float32)
    cast(nn.Module, model).to(DEVICE)
    draft = random_network_draft(model, tokens, architecture=ItemEAGLE(n_heads=3, rank=8))
    draft.network.to(DEVICE)
    request = ListRequest.build(_CATALOG, tokens, _K, sampling=sampling, device=DEVICE)
    decoder = SpeculativeDecoder(draft, ItemTree(9, 2, 10, item_length=4), forced_tokens=False)
    prompts, results = random_prompts(_CATALOG, tokens, [3, 0, 1]), []
    for trees, heads in ((TreeOperations(), DraftOperations()), (TritonTreeOperations(), TritonDraftOperations())):
        monkeypatch.setattr(rounds, "tree_operations_for", lambda *_, made=trees: made)
        monkeypatch.setattr(feature_draft, "draft_operations_for", lambda *_, made=heads: made)
        session = decoder.bind(TransformersRunner(model), request)
        with torch.compiler.set_stance("force_eager"):  # on a GPU, compiling takes minutes
            lists, trace = session.decode(prompts, torch.Generator().manual_seed(0))
        results.append((lists.tokens.tolist(), trace.target_passes.tolist(), trace.accepted.tolist()))
    assert results[0] == results[1]


def test_a_draft_that_is_always_right_reaches_the_last_token_before_a_pass() -> None:
    tokens = SemanticIDVocabulary(_SIZES)
    model = tiny_target(tokens)
    runner, prompts = TransformersRunner(model), random_prompts(_CATALOG, tokens, [3, 0])
    request = ListRequest.build(_CATALOG, tokens, 10)
    expected, _ = AutoregressiveDecoder().bind(runner, request).decode(prompts, torch.Generator())
    draft, length = ItemStub(OracleDraft(expected.tokens, tokens), tokens.item_length), tokens.item_length
    for passes in (1, 2, 3):
        decoder = SpeculativeDecoder(draft, ItemTree(passes * length, 1, item_length=length), forced_tokens=False)
        _, trace = decoder.bind(runner, request).decode(prompts, torch.Generator())
        written, rounds = 1, 0
        while written < request.n_tokens:
            # From the root to the first code, then whole items, and the target's own token.
            root_slot = (written - 1) % length
            written, rounds = written + length - root_slot + (passes - 1) * length + 1, rounds + 1
        assert trace.target_passes.tolist() == [rounds] * 2
        assert trace.draft_passes.tolist() == [passes * rounds] * 2
        assert torch.equal(trace.attempted, trace.accepted)


def test_trees_and_drafts_of_different_passes_are_refused() -> None:
    tokens = SemanticIDVocabulary(_SIZES)
    item = random_network_draft(tiny_target(tokens), tokens, architecture=ItemEAGLE(n_heads=3, rank=8))
    for draft, tree in ((CatalogDraft(), ItemTree()), (item, DynamicTree()), (item, ItemTree(item_length=5))):
        with pytest.raises(
            InputError, match=r"Tree of item_length .* and a draft of .*: expected an ItemTree for a draft"
        ):
            SpeculativeDecoder(draft, tree)


def test_a_tree_that_would_ask_for_all_memory_is_refused() -> None:
    with pytest.raises(InputError, match="depth 257"):
        ItemTree(257)
