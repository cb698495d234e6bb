import itertools
import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from padrec.catalog import Catalog, CatalogTrie, InputError, SemanticIDVocabulary
from padrec.data import AtSpeedReader, LCRecReader
from padrec.data.item_sequences import ItemSequences
from padrec.decoding import (
    BeamDecoder,
    BeamDraft,
    BeamDraftSession,
    BeamRule,
    Branches,
    CatalogBeamDraft,
    DecodingTrace,
    LanguageModelBeamDraft,
    ListRequest,
    Prompts,
    Recommendations,
    RelaxedBeamRule,
    Sampling,
    SpeculativeBeamDecoder,
    TransformersRunner,
)
from padrec.decoding.beam.beam_draft import BeamDraftOpener
from padrec.decoding.beam.beam_plan import SpeculativeBeamPlan
from padrec.decoding.beam.speculative_beam_search import SpeculativeBeamSearch
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from tests.decoding.beam.random_searches import searches
from tests.reference import beam_search, leaf_tokens, prompt_tokens
from tests.stubs import random_catalog, random_prompts, select_rows, tiny_target

_SIZES, _K = (5, 6, 4), 4
_CATALOG = random_catalog(_SIZES, 30)
_VOCABULARY = SemanticIDVocabulary(_SIZES)


class RandomBeamDraft(BeamDraft):
    """Proposes at random."""

    def bind(self, runner: TransformersRunner, request: ListRequest) -> BeamDraftOpener:
        return lambda batch, capacity, constraint: RandomSession(runner.model.config.vocab_size)


class RandomSession(BeamDraftSession):
    def __init__(self, vocabulary_size: int) -> None:
        self._size = vocabulary_size

    def begin(self, prompts: Prompts, features: Tensor | None) -> Tensor:
        return torch.randn(len(prompts.tokens), self._size)

    def extend(self, branches: Branches, nodes: Tensor) -> Tensor:
        return torch.randn(*nodes.shape, self._size)


def language_model(vocabulary: SemanticIDVocabulary, seed: int) -> BeamDraft:
    return LanguageModelBeamDraft(TransformersRunner(tiny_target(vocabulary, n_layers=1, seed=seed)))


def decode(
    decoder: BeamDecoder | SpeculativeBeamDecoder,
    runner: TransformersRunner,
    prompts: Prompts,
    request: ListRequest,
    seed: int = 0,
) -> tuple[Recommendations, DecodingTrace]:
    return decoder.bind(runner, request).decode(prompts, torch.Generator().manual_seed(seed))


@settings(max_examples=60)
@given(
    search=searches(st.integers(1, 12)),
    seed=st.integers(0, 5),
    temperature=st.sampled_from([0.0, 1.0]),
    renormalise=st.booleans(),
)
def test_the_strict_rule_finds_what_the_search_without_a_draft_finds(
    search: tuple[Catalog, SemanticIDVocabulary, int, int, int], seed: int, temperature: float, renormalise: bool
) -> None:
    catalog, vocabulary, list_length, width, draft_width = search
    runner = TransformersRunner(tiny_target(vocabulary, n_layers=1, seed=seed))
    prompts = random_prompts(catalog, vocabulary, [2, 0, 1], seed=seed)
    request = ListRequest.build(catalog, vocabulary, list_length, sampling=Sampling(temperature))
    expected, _ = decode(BeamDecoder(width, 0, renormalise), runner, prompts, request)
    for draft in (RandomBeamDraft(), CatalogBeamDraft(), language_model(vocabulary, seed + 1)):
        decoder = SpeculativeBeamDecoder(draft, draft_width, width, renormalise)
        found, trace = decode(decoder, runner, prompts, request)
        assert decoder.lossless
        assert torch.equal(found.leaves, expected.leaves)
        torch.testing.assert_close(found.log_probs, expected.log_probs, rtol=0, atol=1e-9)
        assert (trace.target_passes <= vocabulary.n_slots - 1).all()
        assert (trace.accepted <= trace.attempted).all()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_strict_rule_equals_a_plain_beam_search(temperature: float) -> None:
    model, prompts = tiny_target(_VOCABULARY, seed=3), random_prompts(_CATALOG, _VOCABULARY, [2, 0, 4])
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K)
    found, _ = decode(SpeculativeBeamDecoder(CatalogBeamDraft(), 6), TransformersRunner(model), prompts, request)
    for row in range(3):
        expected = beam_search(model, prompt_tokens(prompts, row), leaf_tokens(_CATALOG, _VOCABULARY), _K, False)
        assert found.leaves[row].tolist() == [leaf for leaf, _ in expected]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_target_as_its_own_draft_needs_no_pass_after_the_first(temperature: float) -> None:
    model, prompts = tiny_target(_VOCABULARY), random_prompts(_CATALOG, _VOCABULARY, [2, 0, 4])
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, sampling=Sampling(temperature))
    draft = LanguageModelBeamDraft(TransformersRunner(tiny_target(_VOCABULARY)))
    _, trace = decode(SpeculativeBeamDecoder(draft, _K), TransformersRunner(model), prompts, request)
    assert trace.target_passes.tolist() == [0, 0, 0]
    assert trace.accepted_lengths.tolist() == [0, 0, 3]


def test_the_catalog_draft_ranks_prefixes_by_interactions() -> None:
    catalog = Catalog(torch.tensor([[0, 0], [0, 1], [1, 0], [1, 0], [2, 1]]), ["a", "b", "c", "d", "e"])
    vocabulary = SemanticIDVocabulary(catalog.codebook_sizes)
    prompts = random_prompts(catalog, vocabulary, [0])
    runner = TransformersRunner(tiny_target(vocabulary))
    for training, expected in ((None, [2, 2, 1]), ([[1, 1], [4, 1, 4, 4]], [5, 2, 4])):  # one more for each item
        logs = None if training is None else ItemSequences.from_lists(training)
        request = ListRequest.build(catalog, vocabulary, 2, training=logs)
        assert isinstance(request.constraint, CatalogConstraint)
        session = CatalogBeamDraft().bind(runner, request)(1, 64, request.constraint)
        codes = vocabulary.encode(torch.tensor([[code, 0] for code in range(3)]))[:, 0]
        assert session.begin(prompts, None)[0, codes].exp().tolist() == pytest.approx(expected)


@settings(max_examples=30)
@given(search=searches(st.integers(1, 12)), data=st.data(), seed=st.integers(0, 5))
def test_lengths_may_have_widths_of_their_own(
    search: tuple[Catalog, SemanticIDVocabulary, int, int, int], data: st.DataObject, seed: int
) -> None:
    catalog, vocabulary, list_length, width, _ = search
    lengths = vocabulary.n_slots - 1
    widths = data.draw(st.none() | st.lists(st.integers(1, 12), min_size=lengths, max_size=lengths))
    runner = TransformersRunner(tiny_target(vocabulary, n_layers=1, seed=seed))
    prompts = random_prompts(catalog, vocabulary, [2, 0, 1], seed=seed)
    request = ListRequest.build(catalog, vocabulary, list_length)
    expected, _ = decode(BeamDecoder(width, 0), runner, prompts, request)
    decoder = SpeculativeBeamDecoder(language_model(vocabulary, seed + 1), widths, width)
    assert torch.equal(decode(decoder, runner, prompts, request)[0].leaves, expected.leaves)


def test_a_draft_proposes_in_proportion_to_what_is_kept() -> None:
    sizes = (4, 4, 4, 4, 4)
    trie = CatalogTrie(random_catalog(sizes, 30), SemanticIDVocabulary(sizes))
    assert SpeculativeBeamPlan.of(trie, 10, None).draft_widths == (40, 56, 80, 80)


def test_too_few_widths_are_refused() -> None:
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K)
    with pytest.raises(InputError, match=r"draft_width \[4\]: expected a number, or one for each of 2 lengths"):
        SpeculativeBeamDecoder(CatalogBeamDraft(), [4]).bind(TransformersRunner(tiny_target(_VOCABULARY)), request)


def test_a_draft_that_holds_all_prefixes_is_always_accepted() -> None:
    prompts, request = random_prompts(_CATALOG, _VOCABULARY, [2]), ListRequest.build(_CATALOG, _VOCABULARY, _K)
    runner = TransformersRunner(tiny_target(_VOCABULARY))
    _, trace = decode(SpeculativeBeamDecoder(RandomBeamDraft(), 30), runner, prompts, request)
    assert int(trace.target_passes.sum()) == 0
    _, trace = decode(SpeculativeBeamDecoder(RandomBeamDraft(), 1), runner, prompts, request)
    assert int(trace.target_passes.sum()) == 2, "a beam of four is never within a draft of one"


def test_a_round_drafts_only_what_some_row_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[int] = []
    run = SpeculativeBeamSearch.round

    def recorded(search: SpeculativeBeamSearch, round_: int) -> None:
        rounds.append(round_)
        assert int(search.ranked.next_round) == round_
        run(search, round_)

    monkeypatch.setattr(SpeculativeBeamSearch, "round", recorded)
    catalog = random_catalog((4, 5, 4, 3), 60)
    vocabulary = SemanticIDVocabulary((4, 5, 4, 3))
    runner, request = TransformersRunner(tiny_target(vocabulary)), ListRequest.build(catalog, vocabulary, _K)
    session = SpeculativeBeamDecoder(language_model(vocabulary, 5), 8).bind(runner, request)
    firsts: list[int] = []
    for seed in range(3):
        rounds.clear()
        session.decode(random_prompts(catalog, vocabulary, [2], seed=seed), torch.Generator())
        firsts += rounds[:1]
    assert max(firsts) > 1, "a user whose first round found more than one length"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_beam_is_the_same_alone_and_in_any_batch(temperature: float) -> None:
    runner = TransformersRunner(tiny_target(_VOCABULARY))
    prompts = random_prompts(_CATALOG, _VOCABULARY, [2, 0, 4, 1])
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, sampling=Sampling(temperature))
    decoder = SpeculativeBeamDecoder(language_model(_VOCABULARY, 5), 5)
    together, _ = decode(decoder, runner, prompts, request)
    if temperature == 0:
        for row in range(4):
            alone, _ = decode(decoder, runner, select_rows(prompts, [row]), request)
            assert torch.equal(alone.leaves[0], together.leaves[row])
    again, _ = decode(decoder, runner, prompts, request)
    assert torch.equal(again.leaves, together.leaves)


@pytest.mark.parametrize("draft", [CatalogBeamDraft(), language_model(_VOCABULARY, 1)], ids=["catalog", "model"])
def test_a_search_does_not_depend_on_the_default_precision(draft: BeamDraft) -> None:
    runner = TransformersRunner(tiny_target(_VOCABULARY))
    prompts = random_prompts(_CATALOG, _VOCABULARY, [2, 0, 4])
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K)
    expected, _ = decode(SpeculativeBeamDecoder(draft), runner, prompts, request)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)  # as a trainer with precision bf16-true does
    try:
        found, _ = decode(SpeculativeBeamDecoder(draft), runner, prompts, request)
    finally:
        torch.set_default_dtype(before)
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.log_probs, expected.log_probs)


def test_excluded_items_are_not_ranked() -> None:
    runner = TransformersRunner(tiny_target(_VOCABULARY))
    prompts = random_prompts(_CATALOG, _VOCABULARY, [2, 0])
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K)
    best, _ = decode(BeamDecoder(), runner, prompts, request)
    without = Prompts(prompts.tokens, prompts.slots, prompts.lengths, excluded=best.leaves[:, :2])
    expected, _ = decode(BeamDecoder(), runner, without, request)
    found, _ = decode(SpeculativeBeamDecoder(language_model(_VOCABULARY, 5), 5), runner, without, request)
    assert torch.equal(found.leaves, expected.leaves)


_DRAWS = 4000


# How often each set of two items was kept.
Pairs = Counter[frozenset[int]]


def drawn_pairs(rule: BeamRule | None, draft: BeamDraft | None) -> tuple[Pairs, dict[frozenset[int], float]]:
    """How often each set of two first codes is kept, and its probability, over two slots where the second is forced."""
    catalog = Catalog(torch.tensor([[code, 0] for code in range(4)]), list("abcd"))
    vocabulary = SemanticIDVocabulary((4, 1))
    model = tiny_target(vocabulary, seed=2)
    runner, request = TransformersRunner(model), ListRequest.build(catalog, vocabulary, 2, sampling=Sampling(1.0))
    prompts = select_rows(random_prompts(catalog, vocabulary, [2]), [0] * _DRAWS)
    decoder = BeamDecoder(renormalise=True) if draft is None else SpeculativeBeamDecoder(draft, 3, None, True, rule)
    found, _ = decode(decoder, runner, prompts, request)
    logits = runner.model(input_ids=prompts.tokens[:1, : int(prompts.lengths[0])]).logits[0, -1]
    chances = logits[[int(vocabulary.encode(catalog.codes)[code, 0]) for code in range(4)]].softmax(0).tolist()
    law = {
        frozenset(pair): sum(
            chances[first] * chances[second] / (1 - chances[first]) for first, second in (pair, pair[::-1])
        )
        for pair in itertools.combinations(range(4), 2)
    }
    return Counter(frozenset(leaves) for leaves in found.leaves.tolist()), law


def total_variation(counts: Pairs, law: dict[frozenset[int], float]) -> float:
    return sum(abs(counts[pair] / _DRAWS - chance) for pair, chance in law.items()) / 2


def chi_square(counts: Pairs, law: dict[frozenset[int], float]) -> float:
    return sum((counts[pair] - _DRAWS * chance) ** 2 / (_DRAWS * chance) for pair, chance in law.items())


# The quantile of chi-square with 5 degrees of freedom that is passed once in a million times.
_LIMIT = 35.9


def test_drawn_beams_follow_the_law_of_drawing_without_replacement() -> None:
    counts, law = drawn_pairs(None, None)
    assert math.isclose(sum(law.values()), 1)
    assert chi_square(counts, law) < _LIMIT


def test_the_strict_rule_keeps_the_law_and_the_published_relaxed_one_does_not() -> None:
    vocabulary = SemanticIDVocabulary((4, 1))
    draft = LanguageModelBeamDraft(TransformersRunner(tiny_target(vocabulary, seed=2)))  # the target itself
    counts, law = drawn_pairs(None, draft)
    assert chi_square(counts, law) < _LIMIT
    counts, law = drawn_pairs(RelaxedBeamRule(), draft)
    assert chi_square(counts, law) > _LIMIT
    assert not RelaxedBeamRule().lossless
    assert total_variation(counts, law) > 0.02


@pytest.mark.parametrize("name", ["beauty", "atspeed/beauty", "atspeed/games"])
def test_the_strict_rule_finds_the_same_items_of_real_catalogs(name: str, data_folder: Path) -> None:
    """With random weights in float64."""
    reader = AtSpeedReader if name.startswith("atspeed") else LCRecReader
    catalog = reader(str(data_folder / name)).read().catalog
    vocabulary = SemanticIDVocabulary(catalog.codebook_sizes)
    runner = TransformersRunner(tiny_target(vocabulary, n_layers=1))
    prompts, request = random_prompts(catalog, vocabulary, [2, 5]), ListRequest.build(catalog, vocabulary, 10)
    expected, _ = decode(BeamDecoder(look_ahead=0), runner, prompts, request)
    for draft in (CatalogBeamDraft(), language_model(vocabulary, 0), language_model(vocabulary, 5)):
        found, _ = decode(SpeculativeBeamDecoder(draft), runner, prompts, request)
        assert torch.equal(found.leaves, expected.leaves)
        torch.testing.assert_close(found.log_probs, expected.log_probs, rtol=0, atol=1e-9)
