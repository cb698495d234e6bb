"""Sessions: batch after batch through the same tensors and the same captured work."""

import math
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    Chain,
    Decoder,
    DecodingTrace,
    DynamicTree,
    ListRequest,
    Prompts,
    Recommendations,
    Sampling,
    SpeculativeDecoder,
    TransformersRunner,
)
from padrec.decoding.layers.prompt_shape import PromptShape, packed_size
from padrec.decoding.rounds import captured_loop, decoding_session
from padrec.decoding.rounds.decoding_session import DecodingSession, SessionsByShape
from tests.stubs import (
    ContraryDraft,
    CountingRunner,
    OracleDraft,
    SlowGraph,
    UnboundTree,
    random_catalog,
    random_network_draft,
    random_prompts,
    tiny_target,
)

_SIZES, _K = (5, 6, 4), 3
_CATALOG = random_catalog(_SIZES, 30)
_VOCABULARY = SemanticIDVocabulary(_SIZES)
_MODEL = tiny_target(_VOCABULARY)
_DECODERS: dict[str, Callable[[], Decoder]] = {
    "autoregressive": AutoregressiveDecoder,
    "forced": lambda: AutoregressiveDecoder(forced_tokens=True),
    "chain": lambda: SpeculativeDecoder(random_network_draft(_MODEL, _VOCABULARY), Chain(3)),
    "tree": lambda: SpeculativeDecoder(random_network_draft(_MODEL, _VOCABULARY), DynamicTree(3, 3, 10)),
}
# Users of each batch, by the items of their histories: other widths, other sizes, and the first once more.
_BATCHES = [[3, 1], [9, 0], [2, 2], [4, 1, 0], [6], [12, 30], [3, 1]]


# A decoder's session with a target and a request, which goes on from batch to batch.
_SESSIONS: dict[Any, DecodingSession[Recommendations]] = {}


def prompts_of(batch: int) -> Prompts:
    return random_prompts(_CATALOG, _VOCABULARY, _BATCHES[batch], seed=batch % 6)


def decode(
    decoder: Decoder, runner: TransformersRunner, batch: int, request: ListRequest
) -> tuple[Recommendations, DecodingTrace]:
    key = (decoder, runner, request)
    if key not in _SESSIONS:
        _SESSIONS[key] = decoder.bind(runner, request)
    return _SESSIONS[key].decode(prompts_of(batch), torch.Generator().manual_seed(batch % 6))


def assert_same(found: tuple[Recommendations, DecodingTrace], expected: tuple[Recommendations, DecodingTrace]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        for name, value in vars(theirs).items():
            if isinstance(value, Tensor):
                torch.testing.assert_close(getattr(ours, name), value, rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("constrained", [True, False], ids=["catalog", "free"])
@pytest.mark.parametrize("name", _DECODERS)
def test_batches_one_after_the_other_get_the_lists_of_fresh_decoders(
    name: str, constrained: bool, sampling: Sampling
) -> None:
    """Nothing of a batch is left for the next one: neither in caches, lists and counts nor in the draft."""
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, constrained=constrained, sampling=sampling)
    runner = TransformersRunner(_MODEL)
    decoder = _DECODERS[name]()
    for batch in range(len(_BATCHES)):
        fresh = TransformersRunner(_MODEL)
        assert_same(decode(decoder, runner, batch, request), decode(_DECODERS[name](), fresh, batch, request))


@pytest.mark.parametrize("name", _DECODERS)
def test_requests_and_targets_take_turns_at_one_decoder(name: str) -> None:
    requests = [
        ListRequest.build(_CATALOG, _VOCABULARY, _K),
        ListRequest.build(_CATALOG, _VOCABULARY, 2, sampling=Sampling(0.8)),
        ListRequest.build(_CATALOG, _VOCABULARY, _K, constrained=False),
    ]
    runner = TransformersRunner(_MODEL)
    decoder = _DECODERS[name]()
    expected = [decode(_DECODERS[name](), runner, 3, request) for request in requests]
    for _ in range(2):
        for request, lists in zip(requests, expected, strict=True):
            assert_same(decode(decoder, runner, 3, request), lists)
    # A draft shares embedding and head with its target: sessions with two targets stay apart.
    other = TransformersRunner(tiny_target(_VOCABULARY, seed=5))
    found, _ = decode(decoder, other, 3, requests[0])
    expected_of_other, _ = decode(AutoregressiveDecoder(), other, 3, requests[0])
    assert torch.equal(found.tokens, expected_of_other.tokens)
    assert_same(decode(decoder, runner, 3, requests[0]), expected[0])


@pytest.mark.parametrize("name", _DECODERS)
def test_what_is_returned_is_not_written_to_again(name: str) -> None:
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K)
    runner = TransformersRunner(_MODEL)
    decoder = _DECODERS[name]()
    first = decode(decoder, runner, 0, request)
    copies = [{k: v.clone() for k, v in vars(part).items() if isinstance(v, Tensor)} for part in first]
    decode(decoder, runner, 2, request)
    for part, copy in zip(first, copies, strict=True):
        for field, value in copy.items():
            assert torch.equal(getattr(part, field), value), field


def answers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens the lists still lacked, each time that the host waits for the device."""
    asked: list[int] = []

    def noted(missing: Tensor) -> Callable[[], int]:
        value = int(missing)

        def read() -> int:
            asked.append(value)
            return value

        return read

    monkeypatch.setattr(decoding_session, "deferred_value", noted)
    return asked


@pytest.mark.parametrize("depth", [1, 3, 30])
def test_the_device_is_asked_only_when_the_lists_may_be_complete(depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answers(monkeypatch)
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K)
    to_write = request.n_tokens - 1
    expected, _ = decode(AutoregressiveDecoder(), CountingRunner(_MODEL), 3, request)
    assert asked == [1, 0], "without proposals every list needs as many rounds as it has tokens"
    for draft, tokens in (
        (OracleDraft(expected.tokens, _VOCABULARY), depth + 1),
        (ContraryDraft(expected.tokens, _VOCABULARY), 1),
    ):
        asked.clear()
        runner = CountingRunner(_MODEL)
        decoder = SpeculativeDecoder(draft, UnboundTree(Chain(depth)), forced_tokens=False)
        _, trace = decode(decoder, runner, 3, request)
        needed = math.ceil(to_write / tokens)
        assert trace.target_passes.tolist() == [needed] * 3
        assert runner.passes == needed, "no round is run after the end of the last list"
        # While the last round of those that are surely needed runs, what the one before it left may show another.
        lacking = [max(0, to_write - tokens * rounds) for rounds in range(needed + 1)]
        planned, run, least = [], 0, math.ceil(to_write / (depth + 1))
        while least > run:
            noted = [after for after in (least - 1, least) if after > run]
            run = least
            for after in noted:
                planned.append(lacking[after])
                least = max(least, after + math.ceil(lacking[after] / (depth + 1)))
                if least > run:
                    break
        assert asked == planned


@pytest.mark.parametrize("name", _DECODERS)
def test_rounds_end_with_the_longest_list(name: str) -> None:
    """As many passes as the slowest row needs, and none after it."""
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, constrained=False, sampling=Sampling(2.0))
    runner = CountingRunner(_MODEL)
    decoder = _DECODERS[name]()
    for batch in range(len(_BATCHES)):
        runner.passes = 0
        _, trace = decode(decoder, runner, batch, request)
        slowest = int(trace.target_passes.max())
        # Where lists end early, one more may have been started before the host could know.
        assert slowest <= runner.passes <= slowest + 1


def test_capturing_is_timed_apart_and_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured_loop, "CapturedGraph", SlowGraph)
    monkeypatch.setattr(SlowGraph, "made", 0)
    request = ListRequest.build(_CATALOG, _VOCABULARY, 1)
    runner = TransformersRunner(_MODEL)
    decoder = _DECODERS["chain"]()

    def captured(batch: int) -> int:
        made, start = SlowGraph.made, time.perf_counter()
        _, trace = decode(decoder, runner, batch, request)
        elapsed, made = time.perf_counter() - start, SlowGraph.made - made
        assert trace.recording_seconds >= made * SlowGraph.seconds
        assert trace.seconds == trace.prefill_seconds + trace.decode_seconds
        assert trace.seconds + trace.recording_seconds <= elapsed
        return made

    assert captured(0) == 2, "the start and the round"
    assert captured(0) == 0
    assert captured(1) == 1, "another width has a start of its own"
    assert captured(4) == 2, "another batch size has everything of its own"
    assert [captured(batch) for batch in (0, 1, 4)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("n_tokens", "batch", "width", "on_gpu", "on_cpu"),
    [
        (1440, 32, 224, 1536, 1472),
        (1536, 32, 224, 1536, 1536),
        (1537, 32, 224, 1792, 1600),
        (5800, 128, 256, 5888, 5888),
        (20_000, 512, 256, 20_480, 20_480),
        (40, 4, 32, None, 40),  # no more than the smallest size
        (1800, 32, 64, None, 1856),  # rounded up there is nothing left to be saved
        (64, 2, 32, None, None),  # rows without padding
        (2, 2, 1, None, None),
    ],
)
def test_prompts_are_packed_to_few_sizes_and_only_where_it_saves_tokens(
    n_tokens: int, batch: int, width: int, on_gpu: int | None, on_cpu: int | None
) -> None:
    for device, expected in (("cuda", on_gpu), ("cpu", on_cpu)):
        assert packed_size(n_tokens, batch, width, torch.device(device)) == expected


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=40), on_gpu=st.booleans())
def test_a_packed_size_has_room_for_the_prompts_and_little_more(lengths: list[int], on_gpu: bool) -> None:
    n_tokens, device = sum(lengths), torch.device("cuda" if on_gpu else "cpu")
    size = packed_size(n_tokens, len(lengths), max(lengths), device)
    if size is not None:
        assert n_tokens <= size < len(lengths) * max(lengths)
        assert size - n_tokens < max(256 if on_gpu else 1, n_tokens / 16)


def test_batches_of_one_shape_share_a_start() -> None:
    def shape(lengths: list[int], width: int) -> PromptShape:
        tokens = torch.zeros(len(lengths), width, dtype=torch.long)
        return PromptShape.of(Prompts(tokens, tokens, torch.tensor(lengths)), torch.device("cpu"))

    assert shape([3, 9, 1], 9) == shape([2, 2, 9], 9) == PromptShape(3, 9, 13)
    assert shape([3, 9, 2], 9) != shape([3, 9, 1], 9)
    assert shape([9, 9], 9) == PromptShape(2, 9, None)
    assert shape([4], 9) == PromptShape(1, 9, None), "the padding of a single prompt is left"


def test_shapes_that_are_no_longer_used_are_given_up() -> None:
    opened: list[tuple[int, int, bool]] = []

    class Counted(DecodingSession[None]):
        def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[None, DecodingTrace]:
            return None, cast(Any, None)

    def make(batch: int, capacity: int, excludes: bool) -> DecodingSession[None]:
        opened.append((batch, capacity, excludes))
        return Counted()

    sessions = SessionsByShape(make, 1, lambda prompt: None, torch.device("cpu"))
    for batch in (*range(1, 40), 39, 20, 1):
        sessions.decode(random_prompts(_CATALOG, _VOCABULARY, [1] * batch), torch.Generator())
    assert [batch for batch, _, _ in opened] == [*range(1, 40), 1]
