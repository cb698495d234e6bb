"""Several drafts in one tree: the mixture, its weights, and whose proposals were accepted."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    CatalogDraft,
    Chain,
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
    TransformersRunner,
)
from padrec.drafts.retrieval import CombinedDraft, RetrievalDraft, TokenPool
from tests.decoding.decoders.test_text import LookupDraft
from tests.stubs import ContraryDraft, OracleDraft, RandomDraft, StubDraft, random_catalog, random_prompts, tiny_target

_SIZES, _K = (5, 6, 4), 3
_CATALOG = random_catalog(_SIZES, 30)
_VOCABULARY = SemanticIDVocabulary(_SIZES)
_RUNNER = TransformersRunner(tiny_target(_VOCABULARY))
_PROMPTS = random_prompts(_CATALOG, _VOCABULARY, [3, 0, 4])


def decode(draft: Draft, temperature: float = 0.0, nodes: int = 12) -> tuple[Recommendations, Any]:
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, sampling=Sampling(temperature))
    decoder = SpeculativeDecoder(draft, DynamicTree(4, 3, nodes), forced_tokens=False)
    return decoder.bind(_RUNNER, request).decode(_PROMPTS, torch.Generator().manual_seed(0))


def own_lists(temperature: float = 0.0) -> Tensor:
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, sampling=Sampling(temperature))
    lists, _ = AutoregressiveDecoder().bind(_RUNNER, request).decode(_PROMPTS, torch.Generator().manual_seed(0))
    return lists.tokens


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_lists_are_the_targets_own(temperature: float) -> None:
    pool = TokenPool(500)
    pool.add(own_lists(temperature)[0].tolist())
    drafts = {"retrieval": RetrievalDraft(pool), "learned": RandomDraft(_VOCABULARY), "catalog": CatalogDraft()}
    found, trace = decode(CombinedDraft(drafts), temperature)
    assert torch.equal(found.tokens, own_lists(temperature))
    assert set(trace.accepted_by_source) == {*drafts, "forced"}


def test_a_draft_that_is_right_prevails_and_gets_the_credit() -> None:
    lists = own_lists()
    right, wrong = OracleDraft(lists, _VOCABULARY), ContraryDraft(lists.roll(1, 1), _VOCABULARY)
    alone, slow = decode(right)
    found, trace = decode(CombinedDraft({"wrong": wrong, "right": right}))
    assert torch.equal(found.tokens, alone.tokens)
    assert trace.target_passes.tolist() == slow.target_passes.tolist()
    accepted = trace.accepted_by_source
    assert accepted["right"] > 0
    assert (accepted["wrong"], accepted["forced"]) == (0, 0)


class FixedDraft(StubDraft):
    """The same distribution everywhere."""

    def __init__(self, chances: list[float]) -> None:
        self._logits = torch.tensor(chances).log()

    def logits(self, position: Tensor, depth: int, n_nodes: int) -> Tensor:
        return self._logits.expand(len(position), n_nodes, -1)


class _TokenRequest:
    """What a session asks of a request: tokens of one slot."""

    n_slot_states = 1
    vocabulary_size = 3


def test_weights_are_the_mean_responsibilities_of_the_em_algorithm() -> None:
    first, second = [0.7, 0.2, 0.1], [0.1, 0.1, 0.8]
    draft = CombinedDraft({"a": FixedDraft(first), "b": FixedDraft(second)}, patience=2.0)
    request: Any = _TokenRequest()
    session = draft.bind(_RUNNER, request)(DraftPlan(_RUNNER, request, 1, 20, 4, 3))
    zero = torch.zeros(1, 1, dtype=torch.long)
    session.begin(Prompts(zero, zero, zero[0]), torch.empty(0), zero[0], zero[0])
    shares = [1.0, 1.0]  # of one case: the first draft's confidence is always .7
    for emitted in ([2, 0], [2, 2], [1, 2]):
        weights = [share / sum(shares) for share in shares]
        mixed = [sum(w * p[token] for w, p in zip(weights, (first, second), strict=True)) for token in range(3)]
        assert session.root_logits()[0].exp().tolist() == pytest.approx(mixed, abs=1e-5)
        session.extend(torch.tensor([emitted[:1]]), zero, zero, 1)
        tokens = torch.tensor([emitted])
        session.observe(Observation(tokens, tokens, torch.zeros_like(tokens), torch.tensor([2]), torch.empty(1, 0, 0)))
        for token in emitted:
            parts = [w * p[token] for w, p in zip(weights, (first, second), strict=True)]
            shares = [share + part / sum(parts) for share, part in zip(shares, parts, strict=True)]
    assert session.root_logits()[0].exp().sum() == pytest.approx(1.0)


def test_nonsense_of_one_draft_leaves_the_others_alone() -> None:
    nonsense = FixedDraft([math.nan] * _VOCABULARY.size)
    lists = own_lists()
    found, trace = decode(CombinedDraft({"nonsense": nonsense, "right": OracleDraft(lists, _VOCABULARY)}))
    assert torch.equal(found.tokens, lists)
    assert int(trace.target_passes.max()) <= 3


class DeepDraft(CatalogDraft):
    feature_layers = (1, 2)


class HostDraft(Draft):
    def bind(self, runner: TransformersRunner, request: Request[Any]) -> SessionOpener:
        return LookupDraft().bind(runner, request)


def test_drafts_that_do_not_go_together_are_refused() -> None:
    catalog = CatalogDraft()
    for drafts, message in (
        ({"catalog": catalog}, "expected at least two"),
        ({"catalog": catalog, "forced": catalog}, "none called 'forced'"),
        ({"catalog": catalog, "deep": DeepDraft()}, "expected the same ones"),
    ):
        with pytest.raises(InputError, match=message):
            CombinedDraft(drafts)
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K)
    session = SpeculativeDecoder(CombinedDraft({"a": catalog, "b": HostDraft()}), Chain(2)).bind(_RUNNER, request)
    with pytest.raises(InputError, match="b works on the host"):
        session.decode(_PROMPTS, torch.Generator())
