"""Greedy and seeded speculation against autoregression, token by token."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    Chain,
    Decoder,
    DecodingTrace,
    Draft,
    DraftPlan,
    DynamicTree,
    ListRequest,
    Observation,
    Prompts,
    Recommendations,
    Request,
    Sampling,
    SessionOpener,
    SpeculativeDecoder,
    StaticTree,
    TransformersRunner,
    TreeExpansion,
)
from tests.reference import forward, prompt_tokens
from tests.stubs import (
    ContraryDraft,
    GivenKeys,
    OracleDraft,
    RandomDraft,
    StubDraft,
    StubSession,
    UnboundTree,
    random_catalog,
    random_network_draft,
    random_prompts,
    select_rows,
    tiny_target,
)

_SIZES, _K = (5, 6, 4), 3
_CATALOG = random_catalog(_SIZES, 30)
_HISTORY_LENGTHS = [3, 0, 1, 5, 2, 2, 4, 1, 0, 3, 5, 1, 2, 4, 3, 1]
_STATIC = [[0], [1], [2], [0, 0], [0, 1], [1, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0, 0]]


def expansions() -> Iterator[TreeExpansion]:
    yield Chain(4)
    yield StaticTree(_STATIC)
    yield DynamicTree(depth=4, width=3, nodes=12)
    yield DynamicTree(depth=4, width=3, nodes=12, greedy_temperature=0.5)


def drafts(model: PreTrainedModel, vocabulary: SemanticIDVocabulary, lists: Tensor) -> Iterator[Draft]:
    yield OracleDraft(lists, vocabulary)
    yield ContraryDraft(lists, vocabulary)
    yield RandomDraft(vocabulary)
    yield random_network_draft(model, vocabulary)


def decode(
    decoder: Decoder, model: PreTrainedModel, prompts: Prompts, request: ListRequest
) -> tuple[Recommendations, DecodingTrace]:
    runner = TransformersRunner(model)
    return decoder.bind(runner, request).decode(prompts, torch.Generator().manual_seed(0))


def assert_same_lists(found: Recommendations, expected: Recommendations, tolerance: float) -> None:
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.leaves, expected.leaves)
    torch.testing.assert_close(found.log_probs, expected.log_probs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("constrained", [True, False], ids=["catalog", "free"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "per-slot"])
@pytest.mark.parametrize("separator", [True, False], ids=["separator", "dense"])
@pytest.mark.parametrize(
    ("sampling", "dtype"),
    [
        pytest.param(Sampling(), torch.float32, id="greedy-float32"),
        pytest.param(Sampling(), torch.float64, id="greedy-float64"),
        pytest.param(Sampling(0.7, top_k=6, top_p=0.9), torch.float64, id="sampled"),
    ],
)
def test_speculation_equals_autoregression(
    batch: int, constrained: bool, shared: bool, separator: bool, sampling: Sampling, dtype: torch.dtype
) -> None:
    """Greedy, and sampled from the same seed: for drafts that are always, never and randomly right, and a network."""
    vocabulary = SemanticIDVocabulary(_SIZES, separator=separator, shared_codes=shared)
    model = tiny_target(vocabulary, dtype=dtype)
    prompts = random_prompts(_CATALOG, vocabulary, _HISTORY_LENGTHS[:batch])
    request = ListRequest.build(_CATALOG, vocabulary, _K, constrained=constrained, sampling=sampling)
    expected, reference_trace = decode(AutoregressiveDecoder(), model, prompts, request)
    if constrained:
        assert (expected.leaves >= 0).all()
        assert all(len(set(leaves)) == _K for leaves in expected.leaves.tolist())
    for expansion in expansions():
        for draft in drafts(model, vocabulary, expected.tokens):
            tree = UnboundTree(expansion) if isinstance(draft, ContraryDraft) else expansion
            found, trace = decode(SpeculativeDecoder(draft, tree), model, prompts, request)
            assert_same_lists(found, expected, 1e-3 if dtype == torch.float32 else 1e-6)
            assert torch.equal(trace.tokens, reference_trace.tokens)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.1, top_p=0.95)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("constrained", [True, False], ids=["catalog", "free"])
def test_a_list_is_the_same_alone_and_in_any_batch(sampling: Sampling, constrained: bool) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    model = tiny_target(vocabulary, dtype=torch.float32)
    prompts = random_prompts(_CATALOG, vocabulary, _HISTORY_LENGTHS)
    keys = torch.randint(2**62, (16,), generator=torch.Generator().manual_seed(1)).tolist()

    def lists_of(decoder: Decoder, rows: list[int]) -> list[list[int]]:
        keyed = GivenKeys(sampling.temperature, top_p=sampling.top_p, request_keys=tuple(keys[row] for row in rows))
        request = ListRequest.build(_CATALOG, vocabulary, _K, constrained=constrained, sampling=keyed)
        lists: list[list[int]] = decode(decoder, model, select_rows(prompts, rows), request)[0].tokens.tolist()
        return lists

    together = lists_of(AutoregressiveDecoder(), list(range(16)))
    for expansion in expansions():
        decoder = SpeculativeDecoder(random_network_draft(model, vocabulary), expansion)
        for rows in ([0], [1], [9, 3], [15, 2, 7, 4], list(range(16))):
            assert lists_of(decoder, rows) == [together[row] for row in rows]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.1, top_p=0.95)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("constrained", [True, False], ids=["catalog", "free"])
def test_nothing_takes_the_default_precision(sampling: Sampling, constrained: bool) -> None:
    """Lightning's precision `bf16-true` makes bfloat16 the default type in every step: scores and noise must not."""
    vocabulary = SemanticIDVocabulary(_SIZES)
    model = tiny_target(vocabulary, dtype=torch.float32)
    prompts = random_prompts(_CATALOG, vocabulary, [3, 0, 4])
    request = ListRequest.build(_CATALOG, vocabulary, _K, constrained=constrained, sampling=sampling)
    tree = DynamicTree(depth=4, width=3, nodes=12)
    for decoder in (AutoregressiveDecoder(), SpeculativeDecoder(random_network_draft(model, vocabulary), tree)):
        expected, expected_trace = decode(decoder, model, prompts, request)
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            found, trace = decode(decoder, model, prompts, request)
        finally:
            torch.set_default_dtype(before)
        assert_same_lists(found, expected, 0)
        assert torch.equal(trace.accepted, expected_trace.accepted)


@pytest.mark.parametrize(("model_type", "kv_heads", "attention"), [("qwen3", 2, "sdpa"), ("llama", 4, "eager")])
def test_other_targets_keep_their_lists(model_type: str, kv_heads: int, attention: str) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    model = tiny_target(vocabulary, model_type=model_type, kv_heads=kv_heads, attention=attention)
    prompts = random_prompts(_CATALOG, vocabulary, [3, 0, 4])
    request = ListRequest.build(_CATALOG, vocabulary, _K)
    expected, _ = decode(AutoregressiveDecoder(), model, prompts, request)
    for expansion in expansions():
        for draft in drafts(model, vocabulary, expected.tokens):
            found, _ = decode(SpeculativeDecoder(draft, expansion), model, prompts, request)
            assert_same_lists(found, expected, 1e-4)


@pytest.mark.parametrize("depth", [1, 2, 5, 30])
@pytest.mark.parametrize("constrained", [True, False], ids=["catalog", "free"])
def test_a_chain_that_is_always_right_emits_its_depth_and_the_bonus_token(depth: int, constrained: bool) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    model = tiny_target(vocabulary)
    prompts = random_prompts(_CATALOG, vocabulary, [3, 0, 4])
    request = ListRequest.build(_CATALOG, vocabulary, _K, constrained=constrained)
    expected, _ = decode(AutoregressiveDecoder(), model, prompts, request)
    draft = OracleDraft(expected.tokens, vocabulary)
    found, trace = decode(SpeculativeDecoder(draft, Chain(depth), forced_tokens=False), model, prompts, request)
    assert_same_lists(found, expected, 1e-6)
    lengths = [0] * (depth + 1)
    for n_tokens, n_passes in zip(trace.tokens.tolist(), trace.target_passes.tolist(), strict=True):
        whole_rounds, rest = divmod(n_tokens - 1, depth + 1)
        lengths[depth] += whole_rounds
        if rest:
            lengths[rest] += 1  # the list ends before the proposals do
        assert n_passes == whole_rounds + (rest > 0)
    assert trace.accepted_lengths.tolist() == lengths
    assert trace.draft_passes.tolist() == [depth * n_passes for n_passes in trace.target_passes.tolist()]
    assert torch.equal(trace.attempted, trace.accepted)


@pytest.mark.parametrize("constrained", [True, False], ids=["catalog", "free"])
def test_a_draft_that_is_never_right_costs_one_pass_for_each_token(constrained: bool) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    model = tiny_target(vocabulary)
    prompts = random_prompts(_CATALOG, vocabulary, [3, 0, 4])
    request = ListRequest.build(_CATALOG, vocabulary, _K, constrained=constrained)
    expected, _ = decode(AutoregressiveDecoder(), model, prompts, request)
    for expansion in expansions():
        draft = ContraryDraft(expected.tokens, vocabulary)
        found, trace = decode(SpeculativeDecoder(draft, UnboundTree(expansion)), model, prompts, request)
        assert_same_lists(found, expected, 1e-6)
        rounds = trace.tokens - 1  # the first token comes from the prefill
        assert torch.equal(trace.target_passes, rounds)
        assert int(trace.accepted_lengths[0]) == int(trace.accepted_lengths.sum()) == int(rounds.sum())
        assert int(trace.accepted.sum()) == 0
        assert int(trace.attempted[:, 0].sum()) == int(trace.attempted.sum()) == int(rounds.sum())


class PerfectDraft(StubDraft):
    """Knows the target: its logits after a path are the target's own."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def bind(self, runner: TransformersRunner, request: Request[Any]) -> SessionOpener:
        return partial(PerfectSession, self, model=self._model)


class PerfectSession(StubSession):
    def __init__(self, draft: PerfectDraft, plan: DraftPlan, model: PreTrainedModel) -> None:
        super().__init__(draft, plan)
        self._model = model

    def begin(self, prompts: Prompts, features: Tensor, first: Tensor, first_slot: Tensor) -> None:
        self._written = [[*prompt_tokens(prompts, row), int(token)] for row, token in enumerate(first)]

    def observe(self, observation: Observation) -> None:
        for row, (tokens, count) in enumerate(zip(observation.tokens, observation.count, strict=True)):
            self._written[row] += tokens[: int(count)].tolist()

    def root_logits(self) -> Tensor:
        self._paths: list[list[list[int]]] = [[[]] for _ in self._written]
        return self._logits()[:, 0]

    def extend(self, tokens: Tensor, parents: Tensor, slots: Tensor, depth: int) -> Tensor:
        self._paths = [
            [above[parent] + [token] for parent, token in zip(row_parents, row_tokens, strict=True)]
            for above, row_parents, row_tokens in zip(self._paths, parents.tolist(), tokens.tolist(), strict=True)
        ]
        return self._logits()

    def _logits(self) -> Tensor:
        rows = zip(self._written, self._paths, strict=True)
        return torch.stack(
            [torch.stack([forward(self._model, written + path)[0][-1] for path in paths]) for written, paths in rows]
        )


@pytest.mark.parametrize("expansion", [Chain(4), DynamicTree(4, 2, 5)], ids=["chain", "dynamic"])
@pytest.mark.parametrize("constrained", [True, False], ids=["catalog", "free"])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0, 1.5])
def test_a_draft_that_knows_the_target_guesses_every_draw(
    expansion: TreeExpansion, constrained: bool, temperature: float
) -> None:
    """It sees the noise that the target will use, so its best guess is the token that the target draws."""
    vocabulary = SemanticIDVocabulary(_SIZES)
    model = tiny_target(vocabulary)
    prompts = random_prompts(_CATALOG, vocabulary, [3, 0, 4, 1])
    sampling = Sampling(temperature)
    request = ListRequest.build(_CATALOG, vocabulary, _K, constrained=constrained, sampling=sampling)
    expected, _ = decode(AutoregressiveDecoder(), model, prompts, request)
    decoder = SpeculativeDecoder(PerfectDraft(model), expansion, forced_tokens=False)
    found, trace = decode(decoder, model, prompts, request)
    assert_same_lists(found, expected, 1e-6)
    if isinstance(expansion, Chain):  # the best nodes of a tree may be shallow ones
        assert torch.equal(trace.attempted, trace.accepted)
        rounds = [-(-(n_tokens - 1) // 5) for n_tokens in trace.tokens.tolist()]
        assert trace.target_passes.tolist() == rounds
    else:
        assert int(trace.accepted[:, 0].sum()) == int(trace.attempted[:, 0].sum()) > 0


@pytest.mark.parametrize("nodes", [2, 3, 4])
def test_a_tree_of_fewer_nodes_than_levels_stays_inside_the_cache(nodes: int) -> None:
    """The accepted path may be as deep as the tree, though few nodes are left of it."""
    vocabulary = SemanticIDVocabulary(_SIZES)
    model = tiny_target(vocabulary)
    prompts = random_prompts(_CATALOG, vocabulary, [4] * 6)
    request = ListRequest.build(_CATALOG, vocabulary, _K)
    expected, _ = decode(AutoregressiveDecoder(), model, prompts, request)
    expansion = DynamicTree(depth=9, width=3, nodes=nodes)
    for draft in drafts(model, vocabulary, expected.tokens):
        found, _ = decode(SpeculativeDecoder(draft, expansion), model, prompts, request)
        assert_same_lists(found, expected, 1e-6)


@pytest.mark.parametrize("expansion", list(expansions()), ids=["chain", "static", "dynamic", "sharper"])
def test_a_list_of_one_code_needs_no_round(expansion: TreeExpansion) -> None:
    catalog, vocabulary = random_catalog([6], 6), SemanticIDVocabulary([6])
    model = tiny_target(vocabulary)
    prompts = random_prompts(catalog, vocabulary, [1, 2])
    request = ListRequest.build(catalog, vocabulary, 1)
    expected, _ = decode(AutoregressiveDecoder(), model, prompts, request)
    found, trace = decode(SpeculativeDecoder(RandomDraft(vocabulary), expansion), model, prompts, request)
    assert_same_lists(found, expected, 1e-6)
    assert trace.target_passes.tolist() == trace.draft_passes.tolist() == [0, 0]


def test_the_whole_catalog_can_be_listed() -> None:
    catalog, vocabulary = random_catalog((3, 3), 8), SemanticIDVocabulary((3, 3))
    model = tiny_target(vocabulary)
    prompts = random_prompts(catalog, vocabulary, [1, 2, 0])
    request = ListRequest.build(catalog, vocabulary, catalog.n_leaves)
    expected, _ = decode(AutoregressiveDecoder(), model, prompts, request)
    assert expected.leaves.sort(1).values.tolist() == [list(range(catalog.n_leaves))] * 3
    for expansion in expansions():
        for draft in drafts(model, vocabulary, expected.tokens):
            found, _ = decode(SpeculativeDecoder(draft, expansion), model, prompts, request)
            assert_same_lists(found, expected, 1e-6)


def test_a_dynamic_tree_is_grown_unless_another_is_asked_for() -> None:
    vocabulary = SemanticIDVocabulary([2, 2, 2, 2])
    decoder = SpeculativeDecoder(RandomDraft(vocabulary))
    assert isinstance(decoder.expansion, DynamicTree)
    request = ListRequest.build(random_catalog((2, 2, 2, 2), 9), vocabulary, 2)
    assert decoder.max_depth(request) == 6 + request.constraint.longest_run, "the draft's and forced ones"
    assert decoder.lossless
