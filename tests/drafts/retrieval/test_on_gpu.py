"""Drafts by retrieval, compiled and captured, in everything that they are used for."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    BoundedVerification,
    CatalogDraft,
    Decoder,
    DynamicTree,
    ExactVerification,
    ListRequest,
    Prompts,
    RelaxedVerification,
    Sampling,
    SpeculativeDecoder,
    TextRequest,
    TransformersRunner,
)
from padrec.drafts.retrieval import CombinedDraft, PromptGroups, RetrievalDraft, RetrievalTree, TokenPool
from padrec.targets import build_backbone, to_precision
from tests.kernel_device import DEVICE, needs_gpu
from tests.stubs import random_catalog, random_network_draft, random_prompts

pytestmark = needs_gpu

_VOCABULARY = SemanticIDVocabulary((5, 6, 4))
_CATALOG = random_catalog((5, 6, 4), 30)
_TOKENS = 24
# In greedy decoding none of them changes a text.
_RULES = [ExactVerification(), RelaxedVerification(top_k=1), BoundedVerification(max_relaxed=0)]


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def runner(request: pytest.FixtureRequest) -> Iterator[TransformersRunner]:
    """A target, and its precision as the default one, as Lightning sets it."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "initializer_range": 0.3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_backbone({"model_type": "qwen3", **sizes, **heads}, _VOCABULARY)
    to_precision(model, request.param)
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield TransformersRunner(model.eval().requires_grad_(False).to(DEVICE))
    torch.set_default_dtype(before)


def prompts(seed: int, batch: int) -> Prompts:
    return random_prompts(_CATALOG, _VOCABULARY, [3, 5, 4][:batch], seed=seed).to(DEVICE)


def texts_of(decoder: Decoder, runner: TransformersRunner, request: Any, batch: int) -> Tensor:  # noqa: ANN401
    """What it writes for several batches, of which the first comes twice."""
    session = decoder.bind(runner, request)
    rows = [session.decode(prompts(seed, batch), torch.Generator().manual_seed(0))[0].tokens for seed in (0, 1, 2, 0)]
    return torch.cat(rows)


def pool_of(texts: Tensor) -> TokenPool:
    """A pool of two groups, to which the prompts' last tokens belong."""
    pool = TokenPool(5_000, n_groups=2)
    for number, text in enumerate(texts.tolist()):
        pool.add(text, number % 2)
    vectors = torch.rand(_VOCABULARY.size, 3, dtype=torch.float32, generator=torch.Generator().manual_seed(0))
    PromptGroups(vectors, vectors[-2:].clone()).into_pool(pool)
    return pool


@pytest.mark.parametrize("batch", [1, 3])
def test_texts_are_the_targets_own(runner: TransformersRunner, batch: int) -> None:
    request = TextRequest(_VOCABULARY.size, _TOKENS, stop_tokens=(2,))
    expected = texts_of(AutoregressiveDecoder(), runner, request, batch)
    for rule in _RULES:
        draft = RetrievalDraft(pool_of(expected), online=True)
        found = texts_of(SpeculativeDecoder(draft, RetrievalTree(6, 16), verification=rule), runner, request, batch)
        assert runner.model.dtype != torch.float32 or torch.equal(found, expected)
        assert draft.facts["pool"]["look_up_ms"] > 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_lists_of_a_mixture_are_the_targets_own(runner: TransformersRunner, temperature: float) -> None:
    request = ListRequest.build(_CATALOG, _VOCABULARY, 3, sampling=Sampling(temperature), device=DEVICE)
    expected = texts_of(AutoregressiveDecoder(), runner, request, 3)
    learned = random_network_draft(runner.model, _VOCABULARY)
    learned.network.to(DEVICE)
    for rule in _RULES:
        drafts = {"retrieval": RetrievalDraft(pool_of(expected)), "learned": learned, "catalog": CatalogDraft()}
        decoder = SpeculativeDecoder(CombinedDraft(drafts), DynamicTree(6, 4, 16), verification=rule)
        found = texts_of(decoder, runner, request, 3)
        # With sampling, the relaxed rule may put the best token in place of the one that was drawn.
        is_same = temperature == 0 or not isinstance(rule, RelaxedVerification)
        assert runner.model.dtype != torch.float32 or not is_same or torch.equal(found, expected)
