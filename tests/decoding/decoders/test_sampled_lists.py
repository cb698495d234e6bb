"""Sampled lists against their exact law, enumerated token by token without cache and batch."""

from collections import Counter
from functools import cache

import pytest
import torch
from transformers import PreTrainedModel

from padrec.catalog import Catalog, SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    Chain,
    Decoder,
    DynamicTree,
    ItemTree,
    ListRequest,
    Prompts,
    Sampling,
    SpeculativeDecoder,
    StaticTree,
    TransformersRunner,
    TreeExpansion,
)
from padrec.drafts import ItemEAGLE
from tests.reference import ListLaw, PlainTarget, goodness_of_fit, leaf_tokens, prompt_tokens
from tests.stubs import RandomDraft, random_network_draft, random_prompts, select_rows, tiny_target

# Chance of a false alarm of each test; seeds are fixed, so that each passes or fails for good.
_ERROR = 1e-4
_DRAWS = 4000
_CODES = [(0, 0), (0, 2), (1, 0), (1, 1), (1, 1), (2, 2)]  # the first slot's last code forces what follows
_CATALOG = Catalog(torch.tensor(_CODES), [str(item) for item in range(len(_CODES))])
_K = 2
_SAMPLINGS = {
    "temperature 1": Sampling(1.0),
    "hot": Sampling(1.8),
    "cold, top-k": Sampling(0.6, top_k=2),
    "top-p": Sampling(1.2, top_p=0.8),
    "top-k and top-p": Sampling(0.9, top_k=3, top_p=0.7),
}
_DECODERS = ["autoregressive", "chain", "static", "dynamic", "network", "item"]


@cache
def target(separator: bool, shared: bool) -> tuple[PreTrainedModel, SemanticIDVocabulary, Prompts]:
    vocabulary = SemanticIDVocabulary((3, 3), separator=separator, shared_codes=shared)
    return tiny_target(vocabulary, dtype=torch.float32), vocabulary, random_prompts(_CATALOG, vocabulary, [3])


def decoder_of(name: str, model: PreTrainedModel, vocabulary: SemanticIDVocabulary) -> Decoder:
    if name == "autoregressive":
        return AutoregressiveDecoder()
    if name == "network":
        return SpeculativeDecoder(random_network_draft(model, vocabulary), DynamicTree(4, 2, 8))
    if name == "item":
        item = ItemEAGLE(n_heads=vocabulary.item_length - 1, rank=8)
        draft = random_network_draft(model, vocabulary, architecture=item)
        return SpeculativeDecoder(draft, ItemTree(6, 2, 7, item_length=vocabulary.item_length), forced_tokens=False)
    expansions: dict[str, TreeExpansion] = {
        "chain": Chain(3),
        "static": StaticTree([[0], [1], [0, 0], [1, 0], [1, 0, 0]]),
        "dynamic": DynamicTree(3, 2, 7),
    }
    return SpeculativeDecoder(RandomDraft(vocabulary), expansions[name])


@cache
def exact_law(separator: bool, shared: bool, sampling: Sampling, constrained: bool, n_tokens: int) -> ListLaw:
    model, vocabulary, prompts = target(separator, shared)
    leaves = leaf_tokens(_CATALOG, vocabulary) if constrained else None
    return PlainTarget(model, prompt_tokens(prompts, 0), vocabulary, leaves, _K).law(sampling, n_tokens)


def draw(
    name: str, separator: bool, shared: bool, sampling: Sampling, constrained: bool, n_tokens: int
) -> Counter[tuple[int, ...]]:
    """The first tokens of many lists for one prompt, each row with a key of its own; up to `<eos>`."""
    model, vocabulary, prompts = target(separator, shared)
    request = ListRequest.build(_CATALOG, vocabulary, _K, constrained=constrained, sampling=sampling)
    decoder, runner = decoder_of(name, model, vocabulary), TransformersRunner(model)
    seed = 1 + _DECODERS.index(name)
    generator = torch.Generator().manual_seed(seed)
    lists, trace = decoder.bind(runner, request).decode(select_rows(prompts, [0] * _DRAWS), generator)
    if name != "autoregressive":  # a test of speculation only where some proposals are kept and some are not
        assert 0 < int(trace.accepted.sum()) < int(trace.attempted.sum())
    lengths = trace.tokens.clamp(max=n_tokens).tolist()
    return Counter(tuple(row[:n]) for row, n in zip(lists.tokens.tolist(), lengths, strict=True))


@pytest.mark.parametrize("name", _DECODERS)
@pytest.mark.parametrize("sampling", _SAMPLINGS)
def test_lists_under_the_constraint_follow_the_exact_law(name: str, sampling: str) -> None:
    law = exact_law(True, False, _SAMPLINGS[sampling], True, 5)
    assert sum(law.values()) == pytest.approx(1)
    assert all(len(tokens) == 5 for tokens in law)
    assert goodness_of_fit(draw(name, True, False, _SAMPLINGS[sampling], True, 5), law) > _ERROR


@pytest.mark.parametrize("name", ["autoregressive", "dynamic"])
@pytest.mark.parametrize(("separator", "shared"), [(True, True), (False, False), (False, True)])
def test_lists_of_other_vocabularies_follow_the_exact_law(name: str, separator: bool, shared: bool) -> None:
    sampling, n_tokens = Sampling(0.9), 4 + separator
    law = exact_law(separator, shared, sampling, True, n_tokens)
    assert goodness_of_fit(draw(name, separator, shared, sampling, True, n_tokens), law) > _ERROR


@pytest.mark.parametrize("name", _DECODERS)
@pytest.mark.parametrize("sampling", ["temperature 1", "cold, top-k", "top-k and top-p"])
def test_first_tokens_of_free_lists_follow_the_exact_law(name: str, sampling: str) -> None:
    law = exact_law(True, True, _SAMPLINGS[sampling], False, 3)
    assert sum(law.values()) == pytest.approx(1)
    assert goodness_of_fit(draw(name, True, True, _SAMPLINGS[sampling], False, 3), law) > _ERROR


def test_the_goodness_of_fit_notices_a_law_of_another_temperature() -> None:
    law = exact_law(True, False, Sampling(1.0), True, 5)
    hotter = exact_law(True, False, Sampling(1.2), True, 5)
    drawn = draw("dynamic", True, False, Sampling(1.0), True, 5)
    assert goodness_of_fit(drawn, hotter) < _ERROR < goodness_of_fit(drawn, law)
