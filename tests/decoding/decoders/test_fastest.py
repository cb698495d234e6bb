from dataclasses import replace
from typing import TypeVar

import pytest
import torch

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.decoding import (
    AdaptiveDecoder,
    AutoregressiveDecoder,
    Chain,
    Decoder,
    DecodingTrace,
    DynamicTree,
    FastestDecoder,
    ListRequest,
    Prompts,
    Sampling,
    SpeculativeDecoder,
    TransformersRunner,
)
from padrec.decoding.decoders.fastest import FastestSession
from padrec.decoding.lists.request import Request
from padrec.decoding.lists.verification import ExactVerification
from padrec.decoding.rounds.decoding_session import DecodingSession
from tests.stubs import RandomDraft, random_catalog, random_prompts, tiny_target

R = TypeVar("R")

_SIZES = (5, 6, 4)
_VOCABULARY = SemanticIDVocabulary(_SIZES)
_CATALOG = random_catalog(_SIZES, 30)


class LossyVerification(ExactVerification):
    lossless = False


class TimedDecoder(AutoregressiveDecoder):
    """Reports a fixed time for each batch plus one for each of its lists."""

    def __init__(self, per_batch: float, per_list: float) -> None:
        super().__init__()
        self.per_batch, self.per_list = per_batch, per_list
        self.batches: list[int] = []

    def bind(self, runner: TransformersRunner, request: Request[R]) -> DecodingSession[R]:
        return TimedSession(self, super().bind(runner, request))


class TimedSession(DecodingSession[R]):
    def __init__(self, decoder: TimedDecoder, session: DecodingSession[R]) -> None:
        self._decoder, self._session = decoder, session

    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[R, DecodingTrace]:
        lists, trace = self._session.decode(prompts, generator)
        batch = len(prompts.tokens)
        self._decoder.batches.append(batch)
        seconds = self._decoder.per_batch + self._decoder.per_list * batch
        return lists, replace(trace, prefill_seconds=0.0, decode_seconds=seconds, recording_seconds=1.0)


def request_for(temperature: float = 0.0) -> ListRequest:
    return ListRequest.build(_CATALOG, _VOCABULARY, 3, sampling=Sampling(temperature))


def test_every_batch_size_gets_the_decoder_that_is_fastest_for_it() -> None:
    runner, request = TransformersRunner(tiny_target(_VOCABULARY)), request_for()
    large_tree, small_tree = TimedDecoder(1, 1), TimedDecoder(3, 0.1)
    decoder = FastestDecoder({"large": large_tree, "small": small_tree})
    session = decoder.bind(runner, request)
    for batch in (1, 4, 1, 4, 4):  # 2 and 3.1 seconds for a list, 5 and 3.4 for four: clear at once
        prompts = random_prompts(_CATALOG, _VOCABULARY, list(range(batch)))
        session.decode(prompts, torch.Generator())
    measured = [1, 1, 1, 4, 4, 4]
    assert sorted(large_tree.batches) == sorted([*measured, 1, 1])
    assert sorted(small_tree.batches) == sorted([*measured, 4, 4, 4])


def test_what_is_nearly_as_fast_is_tried_for_more_batches() -> None:
    runner, request = TransformersRunner(tiny_target(_VOCABULARY)), request_for()
    lucky, steady, slow = TimedDecoder(1.0, 0), TimedDecoder(1.1, 0), TimedDecoder(1.4, 0)
    decoder = FastestDecoder({"lucky": lucky, "steady": steady, "slow": slow})
    session = decoder.bind(runner, request)
    prompts, chosen = random_prompts(_CATALOG, _VOCABULARY, [1]), []
    for seconds in (1.0, 1.15, 1.2, 1.2, 0.1, 0.1):
        lucky.per_batch = seconds
        chosen.append(session.decode(prompts, torch.Generator())[1].decoder)
    assert chosen == ["lucky", "lucky", "steady", "steady", "steady", "steady"]
    assert [len(d.batches) for d in (lucky, steady, slow)] == [4 * 3 + 2, 4 * 3 + 4, 3]


def test_what_the_choice_costs_is_reported_once_and_apart() -> None:
    runner, request = TransformersRunner(tiny_target(_VOCABULARY)), request_for()
    decoder = FastestDecoder({"a": TimedDecoder(2, 0), "b": TimedDecoder(5, 0)})
    session = decoder.bind(runner, request)
    prompts = random_prompts(_CATALOG, _VOCABULARY, [1])
    traces = [session.decode(prompts, torch.Generator())[1] for _ in range(2)]
    assert [trace.seconds for trace in traces] == [2, 2]
    assert [trace.decoder for trace in traces] == ["a", "a"]
    assert [trace.recording_seconds for trace in traces] == [3 * (2 + 1) + 3 * (5 + 1) + 1, 1]


def test_sessions_of_one_shape_are_tried_once_and_the_slower_given_up() -> None:
    runner, request = TransformersRunner(tiny_target(_VOCABULARY)), request_for()
    decoders = {"slow": TimedDecoder(5, 0), "fast": TimedDecoder(2, 0)}
    session = FastestSession({name: decoder.bind(runner, request) for name, decoder in decoders.items()})
    prompts = random_prompts(_CATALOG, _VOCABULARY, [1])
    traces = [session.decode(prompts, torch.Generator())[1] for _ in range(2)]
    assert [trace.decoder for trace in traces] == ["fast", "fast"]
    assert [trace.recording_seconds for trace in traces] == [3 * (2 + 1) + 3 * (5 + 1) + 1, 1]
    assert [len(decoder.batches) for decoder in decoders.values()] == [3, 3 + 2]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_adaptive_lists_are_those_of_the_reference(temperature: float) -> None:
    runner, request = TransformersRunner(tiny_target(_VOCABULARY)), request_for(temperature)
    decoders: list[Decoder] = [
        AutoregressiveDecoder(),
        AdaptiveDecoder(RandomDraft(_VOCABULARY), [DynamicTree(3, 2, 8), Chain(2)]),
    ]
    sessions = [decoder.bind(runner, request) for decoder in decoders]
    for batch in (1, 3, 5):
        prompts = random_prompts(_CATALOG, _VOCABULARY, list(range(batch)))
        results = [session.decode(prompts, torch.Generator().manual_seed(7)) for session in sessions]
        assert torch.equal(results[0][0].tokens, results[1][0].tokens)
        assert results[1][1].accepted_lengths.shape == (decoders[1].max_depth(request) + 1,)


def test_adaptive_tries_what_could_pay_for_the_batch() -> None:
    decoder = AdaptiveDecoder(RandomDraft(_VOCABULARY), [DynamicTree(6, 10, 60), Chain(3)])
    request = request_for()
    run = request.constraint.longest_run
    assert run == 2
    chain, always = {"Chain of 4 nodes, depth 3"}, {"no speculation", "forced tokens alone"}
    forced_chain, forced_tree = (
        {"Chain of 4 nodes, depth 3, with forced tokens"},
        {"DynamicTree of 60 nodes, depth 6, with forced tokens"},
    )
    assert set(decoder.candidates(request, 1)) == always | chain | forced_chain | forced_tree
    assert set(decoder.candidates(request, 64)) == always | chain | forced_chain
    assert set(decoder.candidates(request, 128)) == always | chain
    assert set(decoder.candidates(request, 1000)) == always
    free = ListRequest.build(_CATALOG, _VOCABULARY, 3, constrained=False)
    assert set(decoder.candidates(free, 1)) == {"no speculation", "DynamicTree of 60 nodes, depth 6"} | chain


def test_adaptive_keeps_trees_that_look_alike_apart() -> None:
    decoder = AdaptiveDecoder(RandomDraft(_VOCABULARY), [DynamicTree(3, 2, 8), DynamicTree(3, 4, 8), Chain(2)])
    names = {name for name in decoder.decoders if name.endswith((", expansion 0", ", expansion 1"))}
    assert names == {"DynamicTree of 8 nodes, depth 3, expansion 0", "DynamicTree of 8 nodes, depth 3, expansion 1"}
    assert len(decoder.decoders) == 2 * 3 + 2


@pytest.mark.parametrize(("given", "expected"), [(None, 0.5), (0.3, 0.3)])
def test_all_default_trees_guess_equally_sharp(given: float | None, expected: float) -> None:
    decoder = AdaptiveDecoder(RandomDraft(_VOCABULARY), greedy_temperature=given)
    trees = [d.expansion for d in decoder.decoders.values() if isinstance(d, SpeculativeDecoder)]
    assert {tree.greedy_temperature for tree in trees if isinstance(tree, DynamicTree) and tree.width > 1} == {expected}


def test_only_lossless_decoders_can_stand_in_for_each_other() -> None:
    lossy = SpeculativeDecoder(RandomDraft(_VOCABULARY), verification=LossyVerification())
    with pytest.raises(
        InputError, match=r"^decoders \['a'\], not lossless \['a'\]: expected lossless decoders of lists"
    ):
        FastestDecoder({"a": lossy})
    with pytest.raises(InputError, match="at least one"):
        FastestDecoder({})
    with pytest.raises(InputError, match=r"^expansions \[\]: expected at least one tree expansion$"):
        AdaptiveDecoder(RandomDraft(_VOCABULARY), [])
    with pytest.raises(InputError, match=r"^greedy_temperature 0.3 beside expansions: expected one of the two$"):
        AdaptiveDecoder(RandomDraft(_VOCABULARY), [Chain(2)], greedy_temperature=0.3)
