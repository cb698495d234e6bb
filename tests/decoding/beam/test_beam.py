import itertools
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from padrec.catalog import Catalog, CatalogTrie, InputError, SemanticIDVocabulary
from padrec.decoding import (
    BeamDecoder,
    Branches,
    DecodingTrace,
    ListRequest,
    Prompts,
    Recommendations,
    Sampling,
    TransformersBeamDecoder,
    TransformersRunner,
)
from padrec.decoding.beam.beam_decoder import searched_constraint
from padrec.decoding.beam.beam_plan import plan_passes
from padrec.decoding.beam.beam_search import BeamSearch
from padrec.decoding.beam.children import Draw
from padrec.decoding.device.captured_graph import captures_graphs
from padrec.decoding.layers.prompt_shape import spare_tokens
from padrec.decoding.layers.runner import TransformersSession
from padrec.decoding.rounds import captured_loop
from tests.decoding.beam.random_searches import searches
from tests.reference import beam_search, item_log_probs, leaf_tokens, prompt_tokens
from tests.stubs import SlowGraph, random_catalog, random_prompts, select_rows, tiny_target

_SIZES, _K = (5, 6, 4), 4
_CATALOG = random_catalog(_SIZES, 30)
_VOCABULARIES = [
    pytest.param(separator, shared, id=f"separator={separator}-shared={shared}")
    for separator in (True, False)
    for shared in (True, False)
]
_LOOK_AHEADS = [0, 5, 12, 40, 512]


def decode(
    decoder: BeamDecoder | TransformersBeamDecoder, runner: TransformersRunner, prompts: Prompts, request: ListRequest
) -> tuple[Recommendations, DecodingTrace]:
    return decoder.bind(runner, request).decode(prompts, torch.Generator())


def codes_log_probs(lists: Recommendations, row: int, vocabulary: SemanticIDVocabulary) -> list[list[float]]:
    """The log-probabilities of each item's codes."""
    length, n_slots = vocabulary.item_length, vocabulary.n_slots
    flat = lists.log_probs[row].tolist()
    return [flat[start : start + n_slots] for start in range(0, len(flat), length)]


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize(("separator", "shared"), _VOCABULARIES)
def test_a_beam_of_all_prefixes_finds_the_best_of_all_items(separator: bool, shared: bool, renormalise: bool) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES, separator=separator, shared_codes=shared)
    model = tiny_target(vocabulary)
    prompts = random_prompts(_CATALOG, vocabulary, [3, 0, 5, 1])
    request = ListRequest.build(_CATALOG, vocabulary, _K)
    leaves = leaf_tokens(_CATALOG, vocabulary)
    decoder = BeamDecoder(beam_width=len(leaves), look_ahead=512, renormalise=renormalise)
    lists, _ = decode(decoder, TransformersRunner(model), prompts, request)
    for row in range(4):
        scored = item_log_probs(model, prompt_tokens(prompts, row), leaves, renormalise)
        best = sorted(range(len(leaves)), key=lambda leaf: -sum(scored[leaf]))[:_K]
        assert lists.leaves[row].tolist() == best
        for found, expected in zip(
            codes_log_probs(lists, row, vocabulary), (scored[leaf] for leaf in best), strict=True
        ):
            assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("look_ahead", _LOOK_AHEADS)
@pytest.mark.parametrize(("width", "renormalise"), [(None, False), (6, False), (4, True)])
def test_every_form_equals_a_plain_beam_search(look_ahead: int, width: int | None, renormalise: bool) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    model = tiny_target(vocabulary, seed=3)
    prompts = random_prompts(_CATALOG, vocabulary, [2, 0, 4, 1, 1, 3])
    request = ListRequest.build(_CATALOG, vocabulary, _K)
    leaves = leaf_tokens(_CATALOG, vocabulary)
    lists, _ = decode(BeamDecoder(width, look_ahead, renormalise), TransformersRunner(model), prompts, request)
    for row in range(6):
        found = beam_search(model, prompt_tokens(prompts, row), leaves, width or _K, renormalise)[:_K]
        assert lists.leaves[row].tolist() == [leaf for leaf, _ in found]
        assert [sum(codes) for codes in codes_log_probs(lists, row, vocabulary)] == pytest.approx(
            [score for _, score in found], abs=1e-9
        )


@settings(max_examples=40)
@given(search=searches(st.integers(0, 40)), seed=st.integers(0, 5))
def test_reading_ahead_changes_passes_and_nothing_else(
    search: tuple[Catalog, SemanticIDVocabulary, int, int, int], seed: int
) -> None:
    catalog, vocabulary, list_length, width, look_ahead = search
    model = tiny_target(vocabulary, n_layers=1, seed=seed)
    prompts = random_prompts(catalog, vocabulary, [2, 0, 1], seed=seed)
    request = ListRequest.build(catalog, vocabulary, list_length)
    runner, leaves = TransformersRunner(model), leaf_tokens(catalog, vocabulary)
    plain, steps = decode(BeamDecoder(width, look_ahead=0), runner, prompts, request)
    ahead, passes = decode(BeamDecoder(width, look_ahead=look_ahead), runner, prompts, request)
    assert torch.equal(ahead.leaves, plain.leaves)
    torch.testing.assert_close(ahead.log_probs, plain.log_probs, rtol=0, atol=1e-9)
    assert steps.target_passes.tolist() == [vocabulary.n_slots - 1] * 3
    assert (passes.target_passes <= steps.target_passes).all()
    for row in range(3):
        expected = beam_search(model, prompt_tokens(prompts, row), leaves, width, renormalise=False)
        assert plain.leaves[row].tolist() == [leaf for leaf, _ in expected][:list_length]


def test_nodes_that_only_fill_up_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU every level is as wide as the trie may make it, here as what the prompts need."""
    catalog = random_catalog((4, 5, 4, 3), 40)
    vocabulary = SemanticIDVocabulary((4, 5, 4, 3))
    runner = TransformersRunner(tiny_target(vocabulary))
    prompts = random_prompts(catalog, vocabulary, [2, 0, 4])
    request = ListRequest.build(catalog, vocabulary, _K)
    decoder = BeamDecoder(look_ahead=15)
    widths: list[int] = []
    filled: list[int] = []
    expand = CatalogTrie.expand

    def counted(trie: CatalogTrie, nodes: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
        widths.append(width)
        filled.append(width - int(trie.n_children(nodes).sum(1).min()))
        return expand(trie, nodes, width)

    monkeypatch.setattr(CatalogTrie, "expand", counted)
    trimmed, trace = decode(decoder, runner, prompts, request)
    assert trace.target_passes.tolist() == [1] * 3
    needed = widths.copy()
    widths.clear()
    filled.clear()
    monkeypatch.setattr("padrec.decoding.beam.beam_decoder.captures_graphs", lambda device: True)
    found, _ = decode(decoder, runner, prompts, request)
    assert torch.equal(found.leaves, trimmed.leaves)
    torch.testing.assert_close(found.log_probs, trimmed.log_probs, rtol=0, atol=1e-9)
    assert max(filled) > 0
    assert sum(widths) > sum(needed)


class BigramSession:
    def prefill_branches(self, prompts: Prompts, branches: Branches) -> Tensor:
        return torch.cat([prompts.tokens[:, -1:], branches.tokens], 1)[..., None]

    def read_branches(self, branches: Branches) -> Tensor:
        return branches.tokens[..., None]


class BigramRunner(TransformersRunner):
    """A target whose logits follow from the last token alone, `[V, V]`."""

    def __init__(self, logits: Tensor) -> None:
        self._table = logits
        self.model = cast(PreTrainedModel, SimpleNamespace(device=torch.device("cpu"), config=SimpleNamespace()))

    def open(self, batch: int, capacity: int, feature_layers: Sequence[int] = (-1,)) -> TransformersSession:
        return cast(TransformersSession, BigramSession())

    def logits(self, features: Tensor) -> Tensor:
        return self._table[features[..., 0]]


@pytest.mark.parametrize("look_ahead", [0, 512])
@pytest.mark.parametrize("width", [2, 3])
def test_equal_scores_go_to_the_first_of_the_catalog_whatever_their_beginnings(look_ahead: int, width: int) -> None:
    catalog = Catalog(torch.tensor([[0, 0], [1, 0], [1, 1]]), ["a", "b", "c"])
    vocabulary = SemanticIDVocabulary([2, 2])
    # Nearly all probability is with <pad>, so that the other log-probabilities are these very numbers.
    table = torch.full((vocabulary.size, vocabulary.size), -900.0, dtype=torch.float64)
    table[:, vocabulary.pad_token] = 0
    for before, token, log_prob in [(1, 4, -200), (1, 5, -100), (4, 6, -100), (5, 6, -200), (5, 7, -200)]:
        table[before, token] = log_prob
    prompts = Prompts(torch.tensor([[vocabulary.bos_token]]), torch.tensor([[3]]), torch.tensor([1]))
    request = ListRequest.build(catalog, vocabulary, width)
    lists, _ = decode(BeamDecoder(look_ahead=look_ahead), BigramRunner(table), prompts, request)
    assert lists.leaves.tolist() == [list(range(width))]
    assert codes_log_probs(lists, 0, vocabulary) == [[-200, -100], [-100, -200], [-100, -200]][:width]


@pytest.mark.parametrize("look_ahead", _LOOK_AHEADS)
def test_equal_scores_go_to_the_first_of_the_catalog(look_ahead: int) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    model = tiny_target(vocabulary)
    torch.nn.init.zeros_(model.get_output_embeddings().weight)  # every token is as probable as any other
    prompts = random_prompts(_CATALOG, vocabulary, [2, 1])
    lists, _ = decode(
        BeamDecoder(look_ahead=look_ahead),
        TransformersRunner(model),
        prompts,
        ListRequest.build(_CATALOG, vocabulary, _K),
    )
    assert lists.leaves.tolist() == [list(range(_K))] * 2


def test_two_passes_suffice_where_the_trie_hardly_branches_below() -> None:
    codes = torch.tensor([[a, b, c, 0] for a, b in itertools.product(range(8), repeat=2) for c in range(1 + (b == 0))])
    catalog = Catalog(codes, [str(item) for item in range(len(codes))])
    vocabulary = SemanticIDVocabulary(catalog.codebook_sizes)
    prompts = random_prompts(catalog, vocabulary, [3, 1])
    request = ListRequest.build(catalog, vocabulary, 10)
    runner = TransformersRunner(tiny_target(vocabulary))
    # All first codes are 8 nodes; ten prefixes of two codes have at most 18 third codes, all of one code more.
    for look_ahead, passes in [(0, 4), (7, 4), (8, 3), (17, 3), (18, 2), (71, 2), (72, 2), (512, 1)]:
        _, trace = decode(BeamDecoder(look_ahead=look_ahead), runner, prompts, request)
        assert trace.target_passes.tolist() == [passes - 1] * 2, look_ahead
        assert trace.tokens.tolist() == [40, 40]
        assert min(trace.prefill_seconds, trace.decode_seconds) > 0


@pytest.mark.parametrize(("device", "expected"), [("cuda", (512, True)), ("cpu", (0, False))])
def test_a_gpu_reads_ahead_and_captures(device: str, expected: tuple[int, bool]) -> None:
    assert (spare_tokens(torch.device(device)), captures_graphs(torch.device(device))) == expected


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_where_passes_can_spare_tokens_the_faster_plan_is_found_by_trial(
    temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("padrec.decoding.beam.beam_decoder.spare_tokens", lambda device: 512)
    vocabulary = SemanticIDVocabulary(_SIZES)
    request = ListRequest.build(_CATALOG, vocabulary, _K, sampling=Sampling(temperature))
    runner, decoder = TransformersRunner(tiny_target(vocabulary)), BeamDecoder()
    session, plain = decoder.bind(runner, request), BeamDecoder(look_ahead=0).bind(runner, request)
    for histories in ([3, 1], [2, 2], [1], [0, 4]):
        prompts = random_prompts(_CATALOG, vocabulary, histories)
        found, trace = session.decode(prompts, torch.Generator().manual_seed(7))
        expected, _ = plain.decode(prompts, torch.Generator().manual_seed(7))
        assert torch.equal(found.tokens, expected.tokens)
        torch.testing.assert_close(found.log_probs, expected.log_probs, rtol=0, atol=1e-12)
        passes = dict(zip(decoder.choices, (3, 1), strict=True))[str(trace.decoder)]
        assert trace.target_passes.tolist() == [passes - 1] * len(histories)


def test_one_plan_needs_no_trial() -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    request = ListRequest.build(_CATALOG, vocabulary, _K)
    prompts = random_prompts(_CATALOG, vocabulary, [3, 1])
    _, trace = decode(BeamDecoder(), TransformersRunner(tiny_target(vocabulary)), prompts, request)
    assert (trace.decoder, trace.target_passes.tolist()) == (None, [2, 2])
    assert BeamDecoder(look_ahead=7).choices == ()


@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
@pytest.mark.parametrize("width", [None, 9])
@pytest.mark.parametrize(("separator", "shared"), _VOCABULARIES)
def test_beam_search_equals_that_of_transformers(
    separator: bool, shared: bool, width: int | None, model_type: str
) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES, separator=separator, shared_codes=shared)
    runner = TransformersRunner(tiny_target(vocabulary, model_type=model_type, seed=5))
    prompts = random_prompts(_CATALOG, vocabulary, [3, 0, 5, 1])
    request = ListRequest.build(_CATALOG, vocabulary, _K)
    found, _ = decode(BeamDecoder(width, look_ahead=512), runner, prompts, request)
    theirs, trace = decode(TransformersBeamDecoder(width), runner, prompts, request)
    assert torch.equal(found.leaves, theirs.leaves)
    assert torch.equal(found.tokens, theirs.tokens)
    torch.testing.assert_close(found.log_probs, theirs.log_probs.double(), rtol=0, atol=1e-5)
    assert trace.target_passes.tolist() == [vocabulary.n_slots - 1] * 4
    assert trace.prefill_seconds > 0


@pytest.mark.parametrize("list_length", [1, 25])
def test_transformers_agrees_where_the_beam_is_one_or_wider_than_the_catalog(list_length: int) -> None:
    catalog = random_catalog(_SIZES, 40)
    vocabulary = SemanticIDVocabulary(_SIZES)
    runner = TransformersRunner(tiny_target(vocabulary))
    prompts = random_prompts(catalog, vocabulary, [3, 0])
    request = ListRequest.build(catalog, vocabulary, list_length)
    width = 1 if list_length == 1 else 200
    found, _ = decode(BeamDecoder(width, look_ahead=512), runner, prompts, request)
    theirs, _ = decode(TransformersBeamDecoder(width), runner, prompts, request)
    assert torch.equal(found.tokens, theirs.tokens)
    torch.testing.assert_close(found.log_probs, theirs.log_probs.double(), rtol=0, atol=1e-5)


def test_items_are_laid_out_as_a_list_of_distinct_ones() -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    prompts = random_prompts(_CATALOG, vocabulary, [3, 1])
    request = ListRequest.build(_CATALOG, vocabulary, _CATALOG.n_leaves)
    lists, _ = decode(BeamDecoder(), TransformersRunner(tiny_target(vocabulary)), prompts, request)
    for row in lists.leaves.tolist():
        assert sorted(row) == list(range(_CATALOG.n_leaves))
    looked_up = Recommendations.from_tokens(lists.tokens, lists.log_probs, _CATALOG, vocabulary, request.list_length)
    assert torch.equal(looked_up.leaves, lists.leaves)
    separators = lists.tokens == vocabulary.separator_token
    assert separators.sum(1).tolist() == [_CATALOG.n_leaves - 1] * 2
    assert (lists.log_probs[separators] == 0).all()


@pytest.mark.parametrize("look_ahead", [0, 512])
def test_a_ranking_is_the_same_alone_and_in_any_batch(look_ahead: int) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    runner = TransformersRunner(tiny_target(vocabulary, dtype=torch.float32))
    prompts = random_prompts(_CATALOG, vocabulary, [3, 0, 6, 1, 2])
    request = ListRequest.build(_CATALOG, vocabulary, _K)
    decoder = BeamDecoder(look_ahead=look_ahead)

    def ranked(rows: Sequence[int]) -> list[list[int]]:
        found: list[list[int]] = decode(decoder, runner, select_rows(prompts, rows), request)[0].leaves.tolist()
        return found

    together = ranked([0, 1, 2, 3, 4])
    for rows in ([0], [1], [2], [3], [4], [3, 1], [2, 4, 0]):
        assert ranked(rows) == [together[row] for row in rows]


# Users of each batch, by the items of their histories: other widths, other sizes, and the first shape once more.
_BATCHES = [[3, 1], [9, 0], [2, 2], [4, 1, 0], [6], [12, 30], [1, 3]]


def batch_prompts(batch: int) -> Prompts:
    return random_prompts(_CATALOG, SemanticIDVocabulary(_SIZES), _BATCHES[batch], seed=batch)


def assert_same(found: Recommendations, expected: Recommendations) -> None:
    assert torch.equal(found.leaves, expected.leaves)
    assert torch.equal(found.tokens, expected.tokens)
    torch.testing.assert_close(found.log_probs, expected.log_probs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("look_ahead", _LOOK_AHEADS)
def test_batches_one_after_the_other_are_ranked_as_by_fresh_decoders(look_ahead: int, renormalise: bool) -> None:
    """Nothing of a batch is left for the next one, and nothing that was returned is written to again."""
    vocabulary = SemanticIDVocabulary(_SIZES)
    model = tiny_target(vocabulary)
    request = ListRequest.build(_CATALOG, vocabulary, _K)
    batches = range(len(_BATCHES))
    fresh = [
        decode(BeamDecoder(None, look_ahead, renormalise), TransformersRunner(model), batch_prompts(batch), request)[0]
        for batch in batches
    ]
    runner, decoder = TransformersRunner(model), BeamDecoder(None, look_ahead, renormalise)
    order = [*batches, *reversed(batches)]
    found = [decode(decoder, runner, batch_prompts(batch), request)[0] for batch in order]
    for batch, lists in zip(order, found, strict=True):
        assert_same(lists, fresh[batch])


def test_requests_and_targets_take_turns_at_one_beam_decoder() -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    requests = [ListRequest.build(_CATALOG, vocabulary, list_length) for list_length in (_K, 2)]
    runners = [TransformersRunner(tiny_target(vocabulary, seed=seed)) for seed in (0, 5)]
    turns = list(itertools.product(runners, requests)) * 2
    decoder = BeamDecoder(look_ahead=12)
    for runner, request in turns:
        expected, _ = decode(BeamDecoder(look_ahead=12), runner, batch_prompts(3), request)
        assert_same(decode(decoder, runner, batch_prompts(3), request)[0], expected)


@pytest.mark.parametrize("look_ahead", [0, 12, 512])
def test_a_batch_of_a_known_shape_captures_nothing(look_ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured_loop, "CapturedGraph", SlowGraph)
    monkeypatch.setattr(SlowGraph, "made", 0)
    vocabulary = SemanticIDVocabulary(_SIZES)
    request = ListRequest.build(_CATALOG, vocabulary, _K)
    runner = TransformersRunner(tiny_target(vocabulary))
    session = BeamDecoder(look_ahead=look_ahead).bind(runner, request)

    def captured(batch: int) -> int:
        made, start = SlowGraph.made, time.perf_counter()
        _, trace = session.decode(batch_prompts(batch), torch.Generator())
        elapsed, made = time.perf_counter() - start, SlowGraph.made - made
        assert trace.recording_seconds >= made * SlowGraph.seconds
        assert trace.seconds + trace.recording_seconds <= elapsed
        return made

    assert captured(0) == 2, "the first pass, and all others"
    assert captured(6) == 0, "other prompts of the same width"
    assert captured(2) == 1, "another width has a first pass of its own"
    assert captured(4) == 2, "another batch size has everything of its own"
    assert [captured(batch) for batch in (0, 2, 4, 6)] == [0, 0, 0, 0]


class NothingFromTheHost(TorchDispatchMode):
    """Refuses tensors made of Python values, which would be copied to the device."""

    def __torch_dispatch__(
        self,
        function: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        assert function is not torch.ops.aten.lift_fresh.default, "a tensor of values from the host"
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("excludes", [False, True])
@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize("look_ahead", _LOOK_AHEADS)
def test_what_is_captured_reads_no_value_on_the_host(
    look_ahead: int, renormalise: bool, excludes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device whose tensors have shapes but no values, reading one or bringing one fails."""
    vocabulary = SemanticIDVocabulary(_SIZES)
    request = ListRequest.build(_CATALOG, vocabulary, _K)
    constraint, width = searched_constraint(request, None)
    plan = plan_passes(constraint.trie, width, look_ahead)
    constraint.trie.to("meta")
    constraint = constraint.excluding(2) if excludes else constraint
    model = tiny_target(vocabulary)
    torch.nn.Module.to(model, "meta")  # in place
    runner = TransformersRunner(model)
    tokens = torch.zeros(2, 32, dtype=torch.long, device="meta")
    prompts = Prompts(tokens, tokens, tokens[:, 0], excluded=tokens[:, :4] if excludes else None)
    # This device knows no mixed precision.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    draw = Draw.of(request, 2, torch.device("meta"))
    search = BeamSearch(runner, runner.open(2, 256), constraint, width, plan, renormalise, draw, fixed_shapes=True)
    with torch.inference_mode(), NothingFromTheHost():  # type: ignore[no-untyped-call]
        # The second run reuses the tensors of the first, as a captured one does.
        for _ in range(2):
            search.start(prompts, prompts.lengths)
            search.finish()
        leaves, log_probs = search.best()
    assert leaves.shape == (2, _K)
    assert log_probs.shape == (2, _K, len(_SIZES))
    assert leaves.device.type == log_probs.device.type == "meta"


@pytest.mark.parametrize("decoder", [BeamDecoder(3), TransformersBeamDecoder(3)])
def test_requests_that_no_beam_can_answer_are_refused(decoder: BeamDecoder | TransformersBeamDecoder) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    runner = TransformersRunner(tiny_target(vocabulary))
    prompts = random_prompts(_CATALOG, vocabulary, [1])
    free = ListRequest.build(_CATALOG, vocabulary, 2, constrained=False)
    cut = ListRequest.build(_CATALOG, vocabulary, 2, sampling=Sampling(0.7, top_k=2))
    long = ListRequest.build(_CATALOG, vocabulary, 4)
    for request, message in [
        (free, "^beam search without a constraint: expected constraint: catalog, whose items it ranks$"),
        (cut, "^beam search with top_k or top_p: expected neither, a drawn beam is cut by its width alone$"),
        (long, "^beam_width 3 for lists of 4 items: expected at least as many$"),
    ]:
        with pytest.raises(InputError, match=message):
            decode(decoder, runner, prompts, request)


def test_beams_of_transformers_are_not_drawn() -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    request = ListRequest.build(_CATALOG, vocabulary, 2, sampling=Sampling(0.7))
    with pytest.raises(InputError, match=r"beam search at temperature 0\.7: expected 0, it does not draw beams$"):
        TransformersBeamDecoder().bind(TransformersRunner(tiny_target(vocabulary)), request)


def test_beams_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="the catalog has 3 distinct semantic IDs"):
        ListRequest.build(random_catalog((3,), 50), SemanticIDVocabulary([3]), 4)


def test_searches_that_find_the_same_share_their_name() -> None:
    assert BeamDecoder(20).search == BeamDecoder(20, look_ahead=0).search == TransformersBeamDecoder(20).search
    names = {BeamDecoder().search, BeamDecoder(20).search, BeamDecoder(20, renormalise=True).search}
    assert len(names) == 3
