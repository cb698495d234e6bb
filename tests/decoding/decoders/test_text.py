"""Free text with stop tokens, and a draft that looks texts up on the host."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import PreTrainedModel

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    Chain,
    Draft,
    DraftPlan,
    DraftSession,
    DynamicTree,
    HostDraftSession,
    ListRequest,
    Observation,
    Prompts,
    Request,
    Sampling,
    SessionOpener,
    SpeculativeDecoder,
    TextRequest,
    TransformersRunner,
)
from tests.reference import forward
from tests.stubs import random_catalog, random_prompts, tiny_target

_SIZES = (5, 6, 4)
_VOCABULARY = SemanticIDVocabulary(_SIZES)
_CATALOG = random_catalog(_SIZES, 30)


class LookupDraft(Draft):
    """Proposes what followed the last token before, in the same text: an example of a draft that works on the host."""

    def bind(self, runner: TransformersRunner, request: Request[Any]) -> SessionOpener:
        return LookupSession


class LookupSession(HostDraftSession):
    def __init__(self, plan: DraftPlan) -> None:
        self._plan = plan
        self._size = plan.request.vocabulary_size
        # Always the same tensor, which captured rounds read.
        self._found = torch.zeros(plan.batch, plan.max_depth, dtype=torch.long, device=plan.runner.model.device)
        self.calls = 0

    def begin(self, prompts: Prompts, features: Tensor, first: Tensor, first_slot: Tensor) -> None:
        """The prompts come with the first look-up."""

    def look_up(self, texts: Sequence[Sequence[int]]) -> None:
        self.calls += 1
        found = []
        for text in texts:
            following: defaultdict[int, Counter[int]] = defaultdict(Counter)
            for before, after in pairwise(text):
                following[before][after] += 1
            row = [text[-1]]
            for _ in range(self._plan.max_depth):
                best = following[row[-1]].most_common(1)
                row.append(best[0][0] if best else row[-1])
            found.append(row[1:])
        self._found.copy_(torch.tensor(found))

    def root_logits(self) -> Tensor:
        return self._logits(0)

    def extend(self, tokens: Tensor, parents: Tensor, slots: Tensor, depth: int) -> Tensor:
        return self._logits(depth)[:, None].expand(-1, tokens.shape[1], -1)

    def observe(self, observation: Observation) -> None:
        """All is known at the next look-up."""

    def _logits(self, depth: int) -> Tensor:
        return 9.0 * nn.functional.one_hot(self._found[:, depth], self._size).float()


def plain_text(model: PreTrainedModel, prompt: list[int], n_tokens: int, stops: Sequence[int]) -> list[int]:
    tokens: list[int] = []
    while len(tokens) < n_tokens and not (tokens and tokens[-1] in stops):
        tokens.append(int(forward(model, prompt + tokens)[0][-1].argmax()))
    return tokens


@pytest.mark.parametrize("expansion", [Chain(4), DynamicTree(3, 2, 6)], ids=["chain", "tree"])
@pytest.mark.parametrize("model_type", ["llama", "gemma"])
def test_greedy_text_is_that_of_a_plain_loop(model_type: str, expansion: Chain | DynamicTree) -> None:
    model = tiny_target(_VOCABULARY, model_type=model_type)
    prompts = random_prompts(_CATALOG, _VOCABULARY, [3, 0, 2])
    runner = TransformersRunner(model)
    rows = [prompts.tokens[row, :length].tolist() for row, length in enumerate(prompts.lengths.tolist())]
    unstopped = [plain_text(model, row, 24, ()) for row in rows]
    stops = (unstopped[0][5], unstopped[1][9])
    for stop_tokens in ((), stops[:1], stops):
        request = TextRequest(_VOCABULARY.size, 24, stop_tokens, _VOCABULARY.pad_token)
        expected = [plain_text(model, row, 24, stop_tokens) for row in rows]
        for decoder in (AutoregressiveDecoder(), SpeculativeDecoder(LookupDraft(), expansion)):
            text, trace = decoder.bind(runner, request).decode(prompts, torch.Generator())
            for row, tokens in enumerate(expected):
                assert text.tokens[row, : len(tokens)].tolist() == tokens
                assert (text.tokens[row, len(tokens) :] == _VOCABULARY.pad_token).all()
            if not set(stop_tokens) & {_VOCABULARY.pad_token}:
                assert text.lengths.tolist() == [len(tokens) for tokens in expected]
            assert trace.tokens.tolist() == [len(tokens) for tokens in expected]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 99), temperature=st.sampled_from([0.0, 0.8, 1.5]))
def test_sampled_text_is_the_same_with_and_without_a_draft(seed: int, temperature: float) -> None:
    runner = TransformersRunner(tiny_target(_VOCABULARY, seed=seed % 3))
    prompts = random_prompts(_CATALOG, _VOCABULARY, [3, 1], seed=seed)
    request = TextRequest(_VOCABULARY.size, 20, (2, 3), sampling=Sampling(temperature))
    expected, _ = AutoregressiveDecoder().bind(runner, request).decode(prompts, torch.Generator().manual_seed(seed))
    decoder = SpeculativeDecoder(LookupDraft(), Chain(3))
    found, _ = decoder.bind(runner, request).decode(prompts, torch.Generator().manual_seed(seed))
    assert torch.equal(found.tokens, expected.tokens)


def test_a_host_draft_is_asked_before_every_round_and_keeps_lists_as_they_are() -> None:
    runner = TransformersRunner(tiny_target(_VOCABULARY))
    prompts = random_prompts(_CATALOG, _VOCABULARY, [3, 1, 7])
    request = ListRequest.build(_CATALOG, _VOCABULARY, 3)
    expected, _ = AutoregressiveDecoder().bind(runner, request).decode(prompts, torch.Generator())
    opened: list[LookupSession] = []

    def watched(plan: DraftPlan) -> DraftSession:
        opened.append(LookupSession(plan))
        return opened[-1]

    class Watched(LookupDraft):
        def bind(self, runner: TransformersRunner, request: Request[Any]) -> SessionOpener:
            return watched

    found, trace = SpeculativeDecoder(Watched(), Chain(3)).bind(runner, request).decode(prompts, torch.Generator())
    assert torch.equal(found.tokens, expected.tokens)
    assert opened[0].calls == int(trace.target_passes.max())


@pytest.mark.parametrize(("n_tokens", "stop"), [(0, 2), (5, 99), (5, -1)])
def test_texts_that_cannot_be_are_refused(n_tokens: int, stop: int) -> None:
    with pytest.raises(InputError, match="expected at least 1 token, and tokens of 0"):
        TextRequest(_VOCABULARY.size, n_tokens, (stop,))
