"""Copies of prompts beside them change nothing where numbers are exact."""

import pytest
import torch

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    Decoder,
    DynamicTree,
    ListRequest,
    RepeatedDecoder,
    Sampling,
    SpeculativeDecoder,
    TransformersRunner,
)
from tests.stubs import random_catalog, random_network_draft, random_prompts, tiny_target

_SIZES = (5, 6, 4)
_CATALOG = random_catalog(_SIZES, 30)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("speculative", [False, True])
def test_the_first_copies_are_what_the_decoder_writes(sampling: Sampling, speculative: bool) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    model = tiny_target(vocabulary)
    draft = random_network_draft(model, vocabulary)
    inner: Decoder = AutoregressiveDecoder()
    if speculative:
        inner = SpeculativeDecoder(draft, DynamicTree(depth=3, width=2, nodes=6))
    prompts = random_prompts(_CATALOG, vocabulary, [3, 0, 4])
    request = ListRequest.build(_CATALOG, vocabulary, 3, sampling=sampling)
    runner = TransformersRunner(model)
    repeated = RepeatedDecoder(inner, copies=3)
    found, trace = repeated.bind(runner, request).decode(prompts, torch.Generator().manual_seed(0))
    expected, expected_trace = inner.bind(runner, request).decode(prompts, torch.Generator().manual_seed(0))
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.leaves, expected.leaves)
    for name in ("tokens", "target_passes", "draft_passes"):
        assert torch.equal(getattr(trace, name), getattr(expected_trace, name))
    assert (repeated.search, repeated.lossless) == (inner.search, inner.lossless)
    assert repeated.max_depth(request) == inner.max_depth(request)


def test_one_copy_is_refused() -> None:
    with pytest.raises(InputError, match="copies 1: expected at least 2"):
        RepeatedDecoder(AutoregressiveDecoder(), copies=1)
