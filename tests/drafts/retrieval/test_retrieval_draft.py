"""Drafting by retrieval: lists and texts stay the target's, votes are those of a plain count, pools learn online."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    Chain,
    DraftPlan,
    DynamicTree,
    ListRequest,
    Observation,
    Prompts,
    Request,
    Sampling,
    SpeculativeDecoder,
    TextRequest,
    TransformersRunner,
)
from padrec.drafts.retrieval import PromptGroups, RetrievalDraft, TokenPool
from tests.stubs import random_catalog, random_prompts, select_rows, tiny_target

_SIZES, _K = (5, 6, 4), 3
_CATALOG = random_catalog(_SIZES, 30)
_VOCABULARY = SemanticIDVocabulary(_SIZES)


def requests(temperature: float) -> list[Request[Any]]:
    sampling = Sampling(temperature)
    return [
        ListRequest.build(_CATALOG, _VOCABULARY, _K, sampling=sampling),
        TextRequest(_VOCABULARY.size, 20, (3,), sampling=sampling),
    ]


def pool_of(texts: Sequence[Sequence[int]], n_groups: int = 1) -> TokenPool:
    pool = TokenPool(2_000, n_groups)
    for place, text in enumerate(texts):
        pool.add(text, place % n_groups)
    return pool


@pytest.mark.parametrize("expansion", [Chain(4), DynamicTree(4, 3, 12)], ids=["chain", "tree"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_lists_and_texts_are_the_targets_own(temperature: float, expansion: DynamicTree) -> None:
    runner = TransformersRunner(tiny_target(_VOCABULARY))
    prompts = random_prompts(_CATALOG, _VOCABULARY, [3, 0, 4])
    for request in requests(temperature):
        expected, slow = AutoregressiveDecoder().bind(runner, request).decode(prompts, torch.Generator().manual_seed(0))
        pool = pool_of([*expected.tokens.tolist(), *torch.randint(4, 19, (9, 12)).tolist()], 3)
        for draft in (RetrievalDraft(pool), RetrievalDraft(), RetrievalDraft(TokenPool(), online=True)):
            session = SpeculativeDecoder(draft, expansion).bind(runner, request)
            found, fast = session.decode(prompts, torch.Generator().manual_seed(0))
            assert torch.equal(found.tokens, expected.tokens)
            alone, _ = session.decode(select_rows(prompts, [0]), torch.Generator().manual_seed(0))
            assert torch.equal(alone.tokens[0], expected.tokens[0])
            if draft.pool is pool:
                assert fast.target_passes.sum() < slow.target_passes.sum() / 2, "it knows these very texts"


def plain_logits(pool: TokenPool, own: list[int], path: list[int], draft: RetrievalDraft, size: int) -> list[float]:
    """Votes of every place of the pool and of the own text, counted one by one."""
    texts = pool.texts.tokens.split(pool.texts.lengths.tolist())
    sources = [(text[:-1].tolist(), count) for text, count in zip(texts, pool.texts.counts.tolist(), strict=True)]
    votes = [0.0] * size
    for text, count in [*sources, (own, 1)]:
        for place in range(1, len(text)):
            lengths = [
                n
                for n in range(1, draft.context + 1)
                if n <= min(place, len(own)) and text[place - n : place] == own[-n:]
            ]
            is_own = text is own
            # Each of the pool's contexts has a place of its own; of the own text only the longest counts.
            for length in lengths[-1:] if is_own else lengths:
                after = text[place:]
                if place < len(text) and after[: len(path)] == path and len(after) > len(path):
                    votes[after[len(path)]] += count * draft.backoff ** (length - 1)
    total = sum(votes) + draft.unseen
    return [math.log((vote + draft.unseen / size) / total) for vote in votes]


_TEXT = st.lists(st.integers(0, 3), min_size=1, max_size=7)


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(_TEXT, max_size=6),
    prompt=_TEXT,
    first=st.integers(0, 3),
    path=st.lists(st.integers(0, 3), max_size=3),
)
def test_votes_are_those_of_a_plain_count(
    texts: list[list[int]], prompt: list[int], first: int, path: list[int]
) -> None:
    runner, size = _RUNNER, _VOCABULARY.size
    draft = RetrievalDraft(pool_of(texts), context=3, places=500)
    request = TextRequest(size, 20)
    session = draft.bind(runner, request)(DraftPlan(runner, request, 1, 40, 8, 4))
    tokens = torch.tensor([prompt])
    session.begin(
        Prompts(tokens, tokens, torch.tensor([len(prompt)])), torch.empty(0), torch.tensor([first]), tokens[0]
    )
    logits, zero = session.root_logits()[:, None], torch.zeros(1, 1, dtype=torch.long)
    for depth, token in enumerate(path, start=1):
        logits = session.extend(torch.tensor([[token]]), zero, zero, depth)
    expected = plain_logits(draft.pool, [*prompt, first], path, draft, size)
    assert logits[0, 0].tolist() == pytest.approx(expected, abs=1e-4)
    # What a round emits is part of the text that the next one looks up.
    emitted = torch.tensor([[2, 1, 0]])
    session.observe(Observation(emitted, emitted, emitted, torch.tensor([2]), torch.empty(1, 0, 0)))
    expected = plain_logits(draft.pool, [*prompt, first, 2, 1], [], draft, size)
    assert session.root_logits()[0].tolist() == pytest.approx(expected, abs=1e-4)


_RUNNER = TransformersRunner(tiny_target(_VOCABULARY))


def test_a_row_looks_in_its_own_group_first() -> None:
    vectors = torch.zeros(_VOCABULARY.size, 1)
    vectors[10], vectors[11] = -1, 1
    pool = pool_of([[5, 17], [5, 18]], n_groups=2)
    PromptGroups(vectors, torch.tensor([[-1.0], [1.0]])).into_pool(pool)
    request = TextRequest(_VOCABULARY.size, 20)
    session = RetrievalDraft(pool).bind(_RUNNER, request)(DraftPlan(_RUNNER, request, 2, 40, 8, 4))
    tokens = torch.tensor([[10, 4, 4], [4, 11, 0]])
    session.begin(Prompts(tokens, tokens, torch.tensor([3, 2])), torch.empty(0), torch.tensor([5, 5]), tokens[0])
    best = session.root_logits().topk(2).indices.tolist()
    assert best == [[17, 18], [18, 17]], "the other group's text comes second"


def test_finished_texts_help_later_batches_but_never_their_own() -> None:
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K)
    draft = RetrievalDraft(TokenPool(10_000), online=True)
    session = SpeculativeDecoder(draft, Chain(8), forced_tokens=False).bind(_RUNNER, request)
    prompts, others = (random_prompts(_CATALOG, _VOCABULARY, [3, 3, 2], seed=seed) for seed in (0, 1))

    def passes(asked: Prompts) -> int:
        _, trace = session.decode(asked, torch.Generator())
        return int(trace.target_passes.sum())

    first = passes(prompts)
    assert passes(prompts) == first, "the same again: nothing has been learned"
    assert len(draft.pool.texts.lengths) == 0
    passes(others)
    assert len(draft.pool.texts.lengths) == 3
    found, _ = session.decode(others, torch.Generator())
    assert passes(prompts) < first, "by now their lists come from another batch"
    learned = {tuple(text[1:-1].tolist()) for text in draft.pool.texts.tokens.split(draft.pool.texts.lengths.tolist())}
    assert {tuple(row) for row in found.tokens.tolist()} <= learned


def test_texts_that_propose_rightly_are_credited() -> None:
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K)
    prompts = random_prompts(_CATALOG, _VOCABULARY, [3])
    expected, _ = AutoregressiveDecoder().bind(_RUNNER, request).decode(prompts, torch.Generator())
    draft = RetrievalDraft(pool_of([[4, 4, 4], *expected.tokens.tolist()]), online=True)
    SpeculativeDecoder(draft, Chain(3)).bind(_RUNNER, request).decode(prompts, torch.Generator())
    draft.learn([], [])
    hits = draft.pool.texts.hits.tolist()
    assert hits[0] == 0
    assert hits[1] > 0


def test_pools_for_other_tokens_are_refused() -> None:
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K)
    with pytest.raises(InputError, match=f"a pool with token 99: expected tokens of 0 … {_VOCABULARY.size - 1}"):
        RetrievalDraft(pool_of([[99]])).bind(_RUNNER, request)
    pool = pool_of([[4]])
    pool.settings["vocabulary"] = "other"
    with pytest.raises(InputError, match="a pool for the vocabulary other: expected one for the target's"):
        RetrievalDraft(pool).bind(_RUNNER, request)
    with pytest.raises(InputError, match="online without a pool"):
        RetrievalDraft(online=True)
