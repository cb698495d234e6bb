"""Numbers that are not finite, from drafts and targets: no list changes, and no row reaches another."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    BatchwiseDecoder,
    BeamDecoder,
    Chain,
    Decoder,
    Draft,
    DynamicTree,
    ListRequest,
    NotFiniteError,
    Prompts,
    Recommendations,
    RepeatedDecoder,
    Request,
    Sampling,
    SessionOpener,
    SpeculativeDecoder,
    StaticTree,
    TextRequest,
    TransformersRunner,
    TreeExpansion,
)
from padrec.decoding.trees.triton_tree_operations import TritonTreeOperations
from tests.stubs import StubDraft, random_catalog, random_network_draft, random_prompts, tiny_target

_VOCABULARY = SemanticIDVocabulary((5, 6, 4))
_CATALOG = random_catalog((5, 6, 4), 30)
_PROMPTS = random_prompts(_CATALOG, _VOCABULARY, [3, 1, 4])
_EXPANSIONS = [
    pytest.param(lambda: DynamicTree(depth=5, width=3, nodes=12), id="dynamic"),
    pytest.param(lambda: DynamicTree(depth=3, width=4, nodes=20, greedy_temperature=0.5), id="sharp"),
    pytest.param(lambda: Chain(4), id="chain"),
    pytest.param(lambda: StaticTree([[0], [1], [2], [0, 0], [1, 0], [0, 1], [0, 0, 0]]), id="static"),
]
_LOGITS: dict[str, Callable[[Tensor], Tensor]] = {
    "NaN": lambda x: torch.full_like(x, torch.nan),
    "plus infinity": lambda x: torch.full_like(x, torch.inf),
    "minus infinity": lambda x: torch.full_like(x, -torch.inf),
    "huge": lambda x: 1e38 * x.float(),
    "some NaN": lambda x: x.masked_fill(x > 1, torch.nan),
    "some nodes NaN": lambda x: x.masked_fill(x[..., :1] > 0, torch.nan),
    "some infinite": lambda x: x.masked_fill(x > 1, torch.inf).masked_fill(x < -1, -torch.inf),
}


class SpoiltDraft(StubDraft):
    """Random logits, whatever the list, that something has happened to."""

    def __init__(self, spoil: Callable[[Tensor], Tensor]) -> None:
        self._spoil, self._generator = spoil, torch.Generator().manual_seed(0)

    def logits(self, position: Tensor, depth: int, n_nodes: int) -> Tensor:
        return self._spoil(torch.randn(len(position), n_nodes, _VOCABULARY.size, generator=self._generator))


def request(temperature: float = 0.0) -> ListRequest:
    return ListRequest.build(_CATALOG, _VOCABULARY, 4, sampling=Sampling(temperature))


def lists(decoder: Decoder, runner: TransformersRunner, asked: ListRequest, prompts: Prompts) -> Recommendations:
    return decoder.bind(runner, asked).decode(prompts, torch.Generator().manual_seed(7))[0]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("expansion", _EXPANSIONS)
def test_no_draft_changes_a_list(expansion: Callable[[], TreeExpansion], temperature: float) -> None:
    runner, asked = TransformersRunner(tiny_target(_VOCABULARY)), request(temperature)
    expected = lists(AutoregressiveDecoder(), runner, asked, _PROMPTS)
    for name, spoil in _LOGITS.items():
        found = lists(SpeculativeDecoder(SpoiltDraft(spoil), expansion()), runner, asked, _PROMPTS)
        assert torch.equal(found.tokens, expected.tokens), name


def test_no_draft_changes_a_list_where_kernels_grow_the_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = TransformersRunner(tiny_target(_VOCABULARY, dtype=torch.float32))
    asked = ListRequest.build(_CATALOG, _VOCABULARY, 2)
    prompts = random_prompts(_CATALOG, _VOCABULARY, [2])
    expected = lists(AutoregressiveDecoder(), runner, asked, prompts)
    monkeypatch.setattr("padrec.decoding.rounds.rounds.tree_operations_for", lambda *_: TritonTreeOperations())
    for name in ("NaN", "some nodes NaN"):
        decoder = SpeculativeDecoder(SpoiltDraft(_LOGITS[name]), DynamicTree(depth=2, width=2, nodes=4))
        assert torch.equal(lists(decoder, runner, asked, prompts).tokens, expected.tokens), name


class SharedDraft(Draft):
    """Bound once, as a draft from a file is to all decoders of one target."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._opener: SessionOpener | None = None

    def bind(self, runner: TransformersRunner, request: Request[Any]) -> SessionOpener:
        self._opener = self._opener or self._draft.bind(runner, request)
        return self._opener


@pytest.mark.parametrize("model_type", ["llama", "helium"])
def test_decoders_that_share_a_draft_that_diverged_write_the_targets_lists(model_type: str) -> None:
    model = tiny_target(_VOCABULARY, dtype=torch.float32, model_type=model_type)
    draft = random_network_draft(tiny_target(_VOCABULARY, dtype=torch.float32), _VOCABULARY)
    draft.network.fusion.weight.data *= 1e12  # finite, but not the features of a few steps
    shared, runner, asked = SharedDraft(draft), TransformersRunner(model), request()
    trees = [DynamicTree(5, 3, 12), Chain(6), DynamicTree(3, 4, 20), StaticTree([[0], [1], [0, 0]])]
    sessions = [SpeculativeDecoder(shared, tree).bind(runner, asked) for tree in trees]
    for seed in range(2):
        prompts = random_prompts(_CATALOG, _VOCABULARY, [3, 1], seed)
        expected = lists(AutoregressiveDecoder(), runner, asked, prompts)
        for session in (*sessions, sessions[0]):
            found, _ = session.decode(prompts, torch.Generator())
            assert torch.equal(found.tokens, expected.tokens)


def test_a_draft_that_several_decoders_share_proposes_as_one_of_its_own() -> None:
    model = tiny_target(_VOCABULARY, dtype=torch.float32)
    draft, runner, asked = random_network_draft(model, _VOCABULARY), TransformersRunner(model), request()
    shared = SharedDraft(draft)
    trees = [DynamicTree(5, 3, 12), Chain(6), DynamicTree(3, 4, 20)]
    sessions = [SpeculativeDecoder(shared, tree).bind(runner, asked) for tree in trees]
    for tree, session in (*zip(trees, sessions, strict=True), (trees[0], sessions[0])):
        own = SpeculativeDecoder(draft, tree).bind(TransformersRunner(model), asked)
        (found, trace), (expected, expected_trace) = (one.decode(_PROMPTS, torch.Generator()) for one in (session, own))
        assert torch.equal(found.tokens, expected.tokens)
        assert torch.equal(trace.target_passes, expected_trace.target_passes)
        assert torch.equal(trace.accepted, expected_trace.accepted)


def spoilt_target(token: int, model_type: str) -> tuple[PreTrainedModel, PreTrainedModel]:
    """A target, and the same one with NaN in the embedding of a token."""
    clean, spoilt = (tiny_target(_VOCABULARY, model_type=model_type, dtype=torch.float32) for _ in range(2))
    embedding: Any = spoilt.get_input_embeddings()
    embedding.weight.data[token] = torch.nan
    return clean, spoilt


class Proposing(StubDraft):
    """Proposes two tokens everywhere, as if nothing else were likely."""

    def __init__(self, tokens: list[int]) -> None:
        self._row = nn.functional.one_hot(torch.tensor(tokens), _VOCABULARY.size).sum(0) * 9.0

    def logits(self, position: Tensor, depth: int, n_nodes: int) -> Tensor:
        return self._row.expand(len(position), n_nodes, -1)


_DECODERS: list[Any] = [
    pytest.param(AutoregressiveDecoder, id="autoregressive"),
    pytest.param(lambda: SpeculativeDecoder(SpoiltDraft(lambda x: x), DynamicTree(4, 3, 12)), id="speculative"),
    pytest.param(lambda: BatchwiseDecoder(AutoregressiveDecoder(), 2), id="batchwise"),
    pytest.param(lambda: RepeatedDecoder(AutoregressiveDecoder()), id="repeated"),
]


@pytest.mark.parametrize("model_type", ["llama", "helium"])
@pytest.mark.parametrize("decoder", _DECODERS)
def test_the_row_whose_logits_are_not_finite_is_named_and_spoils_no_later_batch(
    decoder: Callable[[], Decoder], model_type: str
) -> None:
    # A token that no list holds but the last row's prompt does.
    clean, spoilt = spoilt_target(_VOCABULARY.eos_token, model_type)
    session, asked = decoder().bind(TransformersRunner(spoilt), request()), request()
    tokens = _PROMPTS.tokens.clone()
    tokens[2, 5] = _VOCABULARY.eos_token
    with pytest.raises(NotFiniteError, match="logits for row 2 are not finite") as raised:
        session.decode(replace(_PROMPTS, tokens=tokens), torch.Generator())
    assert raised.value.rows == [2]
    found, _ = session.decode(_PROMPTS, torch.Generator())
    assert torch.equal(found.tokens, lists(AutoregressiveDecoder(), TransformersRunner(clean), asked, _PROMPTS).tokens)


@pytest.mark.parametrize("model_type", ["llama", "helium"])
def test_a_draft_forgets_a_batch_that_was_not_finite(model_type: str) -> None:
    _, spoilt = spoilt_target(_VOCABULARY.eos_token, model_type)
    draft = random_network_draft(spoilt, _VOCABULARY)
    tokens = _PROMPTS.tokens.clone()
    tokens[:, 1] = _VOCABULARY.eos_token
    used, fresh = (SpeculativeDecoder(draft, Chain(4)).bind(TransformersRunner(spoilt), request()) for _ in range(2))
    with pytest.raises(NotFiniteError, match="row 0, row 1, row 2 are"):
        used.decode(replace(_PROMPTS, tokens=tokens), torch.Generator())
    (found, trace), (expected, expected_trace) = (one.decode(_PROMPTS, torch.Generator()) for one in (used, fresh))
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(trace.target_passes, expected_trace.target_passes)


@pytest.mark.parametrize("model_type", ["llama", "helium"])
@pytest.mark.parametrize("expansion", _EXPANSIONS)
def test_a_token_that_is_only_proposed_spoils_nothing(expansion: Callable[[], TreeExpansion], model_type: str) -> None:
    clean = tiny_target(_VOCABULARY, model_type=model_type, dtype=torch.float32)
    asked = ListRequest.build(_CATALOG, _VOCABULARY, 2, constrained=False)
    expected = lists(AutoregressiveDecoder(), TransformersRunner(clean), asked, _PROMPTS)
    unused = [token for token in range(_VOCABULARY.size) if token not in expected.tokens]
    unused = [token for token in unused if token not in _PROMPTS.tokens]
    for token in unused[:3]:
        _, spoilt = spoilt_target(token, model_type)
        draft = Proposing([token, int(expected.tokens[0, 1])])
        found = lists(SpeculativeDecoder(draft, expansion()), TransformersRunner(spoilt), asked, _PROMPTS)
        assert torch.equal(found.tokens, expected.tokens)


def test_a_beam_with_scores_that_are_not_finite_is_refused() -> None:
    _, spoilt = spoilt_target(_VOCABULARY.eos_token, "llama")
    tokens = _PROMPTS.tokens.clone()
    tokens[1, 2] = _VOCABULARY.eos_token
    session = BeamDecoder().bind(TransformersRunner(spoilt), request())
    with pytest.raises(NotFiniteError, match="row 1 are"):
        session.decode(replace(_PROMPTS, tokens=tokens), torch.Generator())


def test_a_text_with_logits_that_are_not_finite_is_refused() -> None:
    model = tiny_target(_VOCABULARY)
    model.lm_head.weight.data[7] = torch.nan
    session = AutoregressiveDecoder().bind(TransformersRunner(model), TextRequest(_VOCABULARY.size, 5))
    with pytest.raises(NotFiniteError, match="row 0, row 1, row 2 are"):
        session.decode(_PROMPTS, torch.Generator())
