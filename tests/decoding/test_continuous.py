"""Continuous batching: what finished rows go on with, and that nobody notices."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedModel

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    CatalogDraft,
    Chain,
    Decoder,
    DecodingTrace,
    DynamicTree,
    ListRequest,
    Prompts,
    Recommendations,
    RootOnly,
    Sampling,
    SpeculativeDecoder,
    TransformersRunner,
    continuous,
    session,
)
from tests.stubs import (
    CountingRunner,
    GivenKeys,
    RandomDraft,
    random_catalog,
    random_network_draft,
    random_prompts,
    select_rows,
    tiny_target,
)

_SIZES, _K = (5, 6, 4), 3
_CATALOG = random_catalog(_SIZES, 30)
_VOCABULARY = SemanticIDVocabulary(_SIZES)
_MODEL = tiny_target(_VOCABULARY)
_NO_FUSING = tiny_target(_VOCABULARY, model_type="gemma")
# More than rows, of very different lengths, the widest one in the middle.
_HISTORIES = [3, 1, 0, 5, 2, 2, 12, 0, 4, 7, 1, 1, 3]


def network(model: PreTrainedModel, rows: int | None) -> Decoder:
    return SpeculativeDecoder(random_network_draft(model, _VOCABULARY), DynamicTree(3, 3, 10), rows=rows)


_DECODERS: dict[str, Callable[[PreTrainedModel, int | None], Decoder]] = {
    "autoregressive": lambda _, rows: AutoregressiveDecoder(rows=rows),
    "forced": lambda _, rows: AutoregressiveDecoder(forced_tokens=True, rows=rows),
    "forced draft": lambda _, rows: SpeculativeDecoder(CatalogDraft(), RootOnly(), rows=rows),
    "random draft": lambda _, rows: SpeculativeDecoder(RandomDraft(_VOCABULARY), Chain(3), rows=rows),
    "network": network,
}


def prompts_of(histories: list[int] = _HISTORIES) -> Prompts:
    return random_prompts(_CATALOG, _VOCABULARY, histories)


def decode(
    name: str,
    rows: int | None,
    request: ListRequest,
    model: PreTrainedModel = _MODEL,
    prompts: Prompts | None = None,
) -> tuple[Recommendations, DecodingTrace, int]:
    runner = CountingRunner(model)
    decoder = _DECODERS[name](model, rows)
    decoder.prepare(runner, _VOCABULARY)
    generator = torch.Generator().manual_seed(4)
    return *decoder.decode(runner, prompts or prompts_of(), request, generator), runner.passes


def assert_same(found: Recommendations, expected: Recommendations) -> None:
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.leaves, expected.leaves)
    torch.testing.assert_close(found.log_probs, expected.log_probs, rtol=0, atol=1e-6)


def assert_same_counts(found: DecodingTrace, expected: DecodingTrace) -> None:
    for count in ("target_passes", "draft_passes", "tokens", "attempted", "accepted", "accepted_lengths"):
        assert torch.equal(getattr(found, count), getattr(expected, count)), count


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("constrained", [True, False], ids=["catalog", "free"])
@pytest.mark.parametrize("rows", [3, 8])
@pytest.mark.parametrize("name", _DECODERS)
def test_lists_are_those_of_one_batch(name: str, rows: int, constrained: bool, temperature: float) -> None:
    """Whatever its row did before, a list and what it cost are those of a row for every prompt."""
    sampling = Sampling(temperature)
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, constrained=constrained, sampling=sampling)
    expected, expected_trace, _ = decode("autoregressive", None, request)
    found, trace, _ = decode(name, rows, request)
    assert_same(found, expected)
    assert torch.equal(trace.tokens, expected_trace.tokens)
    if name != "random draft":  # which guesses other tokens in another order of rows
        _, in_one_batch, _ = decode(name, None, request)
        assert_same_counts(trace, in_one_batch)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", _DECODERS)
def test_layers_of_transformers_are_refilled_too(name: str, temperature: float) -> None:
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, sampling=Sampling(temperature))
    expected, expected_trace, _ = decode("autoregressive", None, request, _NO_FUSING)
    found, trace, _ = decode(name, 5, request, _NO_FUSING)
    assert_same(found, expected)
    if name == "network":
        _, expected_trace, _ = decode(name, None, request, _NO_FUSING)
        assert_same_counts(trace, expected_trace)


@pytest.mark.parametrize("n_prompts", [17, 18, 21])
@pytest.mark.parametrize("name", _DECODERS)
def test_several_rows_are_replaced_at_a_time(name: str, n_prompts: int) -> None:
    """Also where fewer prompts are left than rows are replaced."""
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, sampling=Sampling(1.0))
    prompts = prompts_of((_HISTORIES * 2)[:n_prompts])
    expected, _, _ = decode("autoregressive", None, request, prompts=prompts)
    found, trace, _ = decode(name, 16, request, prompts=prompts)
    assert_same(found, expected)
    if name != "random draft":
        assert_same_counts(trace, decode(name, None, request, prompts=prompts)[1])


@pytest.mark.parametrize("name", ["autoregressive", "network"])
def test_a_list_is_that_of_its_prompt_and_key_alone(name: str) -> None:
    prompts = prompts_of()
    keys = tuple(range(7, 7 + len(_HISTORIES)))
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, sampling=GivenKeys(1.0, request_keys=keys))
    found, _, _ = decode(name, 4, request)
    for row, key in enumerate(keys):
        alone = replace(request, sampling=GivenKeys(1.0, request_keys=(key,)))
        expected, _, _ = decode(name, None, alone, prompts=select_rows(prompts, [row]))
        assert torch.equal(found.tokens[row : row + 1], expected.tokens)


@pytest.mark.parametrize(("name", "constrained"), [("forced", True), ("network", True)])
def test_refilling_takes_fewer_passes_than_batches_that_wait(name: str, constrained: bool) -> None:
    """What it is for: the passes of a batch are those of its slowest list."""
    request = ListRequest.build(_CATALOG, _VOCABULARY, 6, constrained=constrained)
    prompts, rows = prompts_of([2, 0, 1, 3] * 16), 8
    n_prompts = len(prompts.tokens)
    keys = tuple(range(n_prompts))
    refilled = decode(name, rows, replace(request, sampling=GivenKeys(2.0, request_keys=keys)), prompts=prompts)
    waited, tokens = 0, []
    for first in range(0, n_prompts, rows):
        at = range(first, first + rows)
        batch = replace(request, sampling=GivenKeys(2.0, request_keys=tuple(at)))
        lists, _, passes = decode(name, None, batch, prompts=select_rows(prompts, at))
        tokens.append(lists.tokens)
        waited += passes
    assert torch.equal(refilled[0].tokens, torch.cat(tokens))
    least = math.ceil(int(refilled[1].target_passes.sum()) / rows)
    assert least <= refilled[2] < waited


@pytest.mark.parametrize("name", ["autoregressive", "forced", "network"])
def test_streams_and_batches_take_turns_at_one_decoder(name: str) -> None:
    """Also where batches are as large as the rows, or as what is replaced at a time: they share caches."""
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K, sampling=Sampling(1.0))
    runner = TransformersRunner(_MODEL)
    decoder = _DECODERS[name](_MODEL, 8)
    decoder.prepare(runner, _VOCABULARY)
    sizes = [13, 8, 2, 13, 9, 1, 10, 2, 13]
    for size in sizes:
        prompts = select_rows(prompts_of(), range(size))
        found, trace = decoder.decode(runner, prompts, request, torch.Generator().manual_seed(4))
        expected, expected_trace, _ = decode(name, None, request, prompts=prompts)
        assert_same(found, expected)
        assert_same_counts(trace, expected_trace)


def test_what_is_recorded_may_be_run_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where everything is run before it is recorded."""

    class Impatient:
        made = itertools.count()

        def __init__(self, function: Callable[[], None], device: torch.device) -> None:
            next(self.made)
            for _ in range(3):
                function()
            self.run = function

        def __call__(self) -> None:
            self.run()

    for module in (session, continuous):
        monkeypatch.setattr(module, "Recording", Impatient)
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K)
    runner = TransformersRunner(_MODEL)
    decoder = network(_MODEL, 8)
    decoder.prepare(runner, _VOCABULARY)
    for histories in (_HISTORIES, [9] * 3 + _HISTORIES, _HISTORIES):
        prompts = prompts_of(histories)
        found, _ = decoder.decode(runner, prompts, request, torch.Generator())
        expected, _, _ = decode("autoregressive", None, request, prompts=prompts)
        assert_same(found, expected)
    made = next(Impatient.made)
    decoder.decode(runner, prompts_of(), request, torch.Generator())
    assert next(Impatient.made) == made + 1, "nothing is recorded twice"


@pytest.mark.parametrize("rows", [-1, 0, 1])
def test_rows_that_cannot_be_refilled_are_refused(rows: int) -> None:
    for make in (AutoregressiveDecoder, lambda rows: SpeculativeDecoder(CatalogDraft(), rows=rows)):
        with pytest.raises(InputError, match=f"rows {rows}: expected at least 2, or null"):
            make(rows=rows)
