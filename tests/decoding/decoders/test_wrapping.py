"""Decoders that run another one on other batches get the lists of the one that they run."""

from dataclasses import replace
from typing import TypeVar

import pytest
import torch
from transformers import PreTrainedModel

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    BatchwiseDecoder,
    Decoder,
    DecodingTrace,
    DynamicTree,
    ListRequest,
    Prompts,
    RepeatedDecoder,
    Sampling,
    SpeculativeDecoder,
    TransformersRunner,
)
from padrec.decoding.lists.request import Request
from padrec.decoding.rounds.decoding_session import DecodingSession
from tests.stubs import random_catalog, random_network_draft, random_prompts, tiny_target

R = TypeVar("R")

_SIZES = (5, 6, 4)
_CATALOG = random_catalog(_SIZES, 30)
_VOCABULARY = SemanticIDVocabulary(_SIZES)


class WatchedDecoder(AutoregressiveDecoder):
    """Remembers the shapes of its batches, and says that capturing took a quarter of a second for each."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, int]] = []

    def bind(self, runner: TransformersRunner, request: Request[R]) -> DecodingSession[R]:
        return WatchedSession(self, super().bind(runner, request))


class WatchedSession(DecodingSession[R]):
    def __init__(self, decoder: WatchedDecoder, session: DecodingSession[R]) -> None:
        self._decoder, self._session = decoder, session

    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[R, DecodingTrace]:
        self._decoder.shapes.append((prompts.tokens.shape[0], prompts.tokens.shape[1]))
        lists, trace = self._session.decode(prompts, generator)
        return lists, replace(trace, recording_seconds=0.25, decoder=f"of {len(prompts.tokens)}")


def inner_decoder(model: PreTrainedModel, speculative: bool) -> Decoder:
    if speculative:
        return SpeculativeDecoder(random_network_draft(model, _VOCABULARY), DynamicTree(depth=3, width=2, nodes=6))
    return AutoregressiveDecoder()


@pytest.mark.parametrize("batch_size", [1, 2, 5, 9])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("speculative", [False, True])
def test_lists_and_counts_are_those_of_all_at_once(sampling: Sampling, speculative: bool, batch_size: int) -> None:
    model = tiny_target(_VOCABULARY)
    inner = inner_decoder(model, speculative)
    batchwise = BatchwiseDecoder(inner, batch_size)
    prompts = random_prompts(_CATALOG, _VOCABULARY, [3, 0, 4, 1, 7])
    request = ListRequest.build(_CATALOG, _VOCABULARY, 3, sampling=sampling)
    runner = TransformersRunner(model)
    found, trace = batchwise.bind(runner, request).decode(prompts, torch.Generator().manual_seed(0))
    expected, expected_trace = inner.bind(runner, request).decode(prompts, torch.Generator().manual_seed(0))
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.leaves, expected.leaves)
    torch.testing.assert_close(found.log_probs, expected.log_probs, rtol=0, atol=1e-6)
    for name in ("tokens", "target_passes", "draft_passes", "attempted", "accepted", "accepted_lengths"):
        assert torch.equal(getattr(trace, name), getattr(expected_trace, name)), name
    assert (batchwise.search, batchwise.lossless) == (inner.search, inner.lossless)
    assert batchwise.max_depth(request) == inner.max_depth(request)


def test_batches_are_padded_no_more_than_they_need() -> None:
    inner = WatchedDecoder()
    prompts = random_prompts(_CATALOG, _VOCABULARY, [3, 0, 4, 1, 7])
    request = ListRequest.build(_CATALOG, _VOCABULARY, 3)
    runner = TransformersRunner(tiny_target(_VOCABULARY))
    _, trace = BatchwiseDecoder(inner, 2).bind(runner, request).decode(prompts, torch.Generator())
    lengths = prompts.lengths.tolist()
    assert inner.shapes == [(2, max(lengths[:2])), (2, max(lengths[2:4])), (1, lengths[4])]
    assert trace.recording_seconds == 0.75, "reported, and no part of decoding"
    assert trace.decoder is None, "batches of two sizes were decoded by two"
    _, trace = BatchwiseDecoder(inner, 5).bind(runner, request).decode(prompts, torch.Generator())
    assert trace.decoder == "of 5"


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("speculative", [False, True])
def test_the_first_copies_are_what_the_decoder_writes(sampling: Sampling, speculative: bool) -> None:
    model = tiny_target(_VOCABULARY)
    inner = inner_decoder(model, speculative)
    prompts = random_prompts(_CATALOG, _VOCABULARY, [3, 0, 4])
    request = ListRequest.build(_CATALOG, _VOCABULARY, 3, sampling=sampling)
    runner = TransformersRunner(model)
    repeated = RepeatedDecoder(inner, copies=3)
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    found, trace = repeated.bind(runner, request).decode(prompts, generators[0])
    expected, expected_trace = inner.bind(runner, request).decode(prompts, generators[1])
    assert torch.equal(generators[0].get_state(), generators[1].get_state())
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.leaves, expected.leaves)
    for name in ("tokens", "target_passes", "draft_passes"):
        assert torch.equal(getattr(trace, name), getattr(expected_trace, name))
    assert (repeated.search, repeated.lossless) == (inner.search, inner.lossless)
    assert repeated.max_depth(request) == inner.max_depth(request)


def test_one_copy_is_refused() -> None:
    with pytest.raises(InputError, match="copies is 1, expected 2 … 64"):
        RepeatedDecoder(AutoregressiveDecoder(), copies=1)
