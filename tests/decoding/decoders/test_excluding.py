"""Lists and beams of prompts that exclude items, against plain references over the items that are left."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from padrec.catalog import Catalog, InputError, SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    BatchwiseDecoder,
    BeamDecoder,
    Chain,
    Decoder,
    DynamicTree,
    ListRequest,
    Prompts,
    Recommendations,
    RepeatedDecoder,
    Sampling,
    SpeculativeDecoder,
    StaticTree,
    TextRequest,
    TransformersBeamDecoder,
    TransformersDecoder,
    TransformersRunner,
    excluded_leaves,
)
from padrec.decoding.rounds import captured_loop
from tests.reference import PlainTarget, beam_search, goodness_of_fit, leaf_tokens, prompt_tokens
from tests.stubs import (
    GivenKeys,
    SlowGraph,
    random_catalog,
    random_network_draft,
    random_prompts,
    select_rows,
    tiny_target,
)

_SIZES, _K = (5, 6, 4), 4
_CATALOG = random_catalog(_SIZES, 30)
_DECODERS = ["autoregressive", "forced", "chain", "static", "dynamic", "batchwise", "repeated"]
# "batchwise" draws its random keys batch by batch, so that no row could be given its own.
_KEYED = [name for name in _DECODERS if name != "batchwise"]
_VOCABULARIES = [(True, False), (False, False), (True, True)]
_ROWS = 4


def excluded_items() -> list[list[int]]:
    """Of each row: nothing, some items, all but one first code's, all but K leaves."""
    leaf = _CATALOG.leaf_of_item.tolist()
    category = int(torch.bincount(_CATALOG.codes[:, 0].long()).argmax())
    outside = [item for item in range(30) if int(_CATALOG.codes[item, 0]) != category]
    return [[], [0, 3, 4, 17, 22], outside, [item for item in range(30) if leaf[item] % 5 or leaf[item] >= 5 * _K]]


def decoder_of(name: str, runner: TransformersRunner, vocabulary: SemanticIDVocabulary) -> Decoder:
    draft = random_network_draft(runner.model, vocabulary)
    return {
        "autoregressive": AutoregressiveDecoder(),
        "forced": AutoregressiveDecoder(forced_tokens=True),
        "chain": SpeculativeDecoder(draft, Chain(3)),
        "static": SpeculativeDecoder(draft, StaticTree([[0], [1], [0, 0], [1, 0]])),
        "dynamic": SpeculativeDecoder(draft, DynamicTree(4, 3, 10)),
        "batchwise": BatchwiseDecoder(SpeculativeDecoder(draft, DynamicTree(4, 3, 10)), 3),
        "repeated": RepeatedDecoder(SpeculativeDecoder(draft, DynamicTree(4, 3, 10))),
    }[name]


def excluding(prompts: Prompts) -> Prompts:
    return replace(prompts, excluded=excluded_leaves(_CATALOG, excluded_items(), _K))


def left_in(row: int) -> list[int]:
    """The leaves that a row may recommend."""
    excluded = set(excluded_leaves(_CATALOG, excluded_items(), _K)[row].tolist())
    return [leaf for leaf in range(_CATALOG.n_leaves) if leaf not in excluded]


def decoded(decoder: Decoder, runner: TransformersRunner, request: ListRequest, prompts: Prompts) -> Recommendations:
    lists, _ = decoder.bind(runner, request).decode(prompts, torch.Generator().manual_seed(1))
    return lists


def assert_only_left(leaves: Tensor) -> None:
    for row in range(_ROWS):
        assert set(leaves[row].tolist()) <= set(left_in(row))
        assert len(set(leaves[row].tolist())) == _K


@pytest.mark.parametrize("name", _DECODERS)
@pytest.mark.parametrize(("separator", "shared"), _VOCABULARIES)
def test_greedy_lists_equal_plain_ones_over_the_items_that_are_left(name: str, separator: bool, shared: bool) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES, separator=separator, shared_codes=shared)
    runner = TransformersRunner(tiny_target(vocabulary))
    prompts = excluding(random_prompts(_CATALOG, vocabulary, [3, 0, 5, 1]))
    request = ListRequest.build(_CATALOG, vocabulary, _K)
    lists = decoded(decoder_of(name, runner, vocabulary), runner, request, prompts)
    leaves = leaf_tokens(_CATALOG, vocabulary)
    for row in range(_ROWS):
        left = [leaves[leaf] for leaf in left_in(row)]
        plain = PlainTarget(runner.model, prompt_tokens(prompts, row), vocabulary, left, _K)
        tokens, log_probs = plain.greedy_list()
        assert lists.tokens[row].tolist() == tokens
        assert lists.log_probs[row].tolist() == pytest.approx(log_probs, abs=1e-6)
    assert_only_left(lists.leaves)


@pytest.mark.parametrize("name", _KEYED)
@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_a_row_gets_the_same_list_alone_and_in_any_batch(name: str, temperature: float) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    runner = TransformersRunner(tiny_target(vocabulary))
    prompts = excluding(random_prompts(_CATALOG, vocabulary, [3, 0, 5, 1]))

    def lists(rows: list[int]) -> list[list[int]]:
        keys = tuple(100 + row for row in rows) * (2 if name == "repeated" else 1)
        request = ListRequest.build(_CATALOG, vocabulary, _K, sampling=GivenKeys(temperature, request_keys=keys))
        found: list[list[int]] = decoded(
            decoder_of(name, runner, vocabulary), runner, request, select_rows(prompts, rows)
        ).tokens.tolist()
        return found

    together = lists([0, 1, 2, 3])
    assert [lists([row])[0] for row in range(_ROWS)] == together
    assert lists([2, 0, 3, 2]) == [together[row] for row in (2, 0, 3, 2)]


@pytest.mark.parametrize("sampling", [Sampling(1.0), Sampling(0.8, top_k=4), Sampling(1.2, top_p=0.8)], ids=str)
@pytest.mark.parametrize("name", [name for name in _DECODERS if name != "autoregressive"])
def test_sampled_lists_are_those_of_the_target_token_by_token(name: str, sampling: Sampling) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    runner = TransformersRunner(tiny_target(vocabulary))
    prompts = excluding(random_prompts(_CATALOG, vocabulary, [3, 0, 5, 1]))
    request = ListRequest.build(_CATALOG, vocabulary, _K, sampling=sampling)
    plain = decoded(AutoregressiveDecoder(), runner, request, prompts)
    found = decoded(decoder_of(name, runner, vocabulary), runner, request, prompts)
    if name == "repeated":  # draws keys for all copies, the first of which are the prompts' own
        assert_only_left(found.leaves)
    else:
        assert torch.equal(found.tokens, plain.tokens)
    assert_only_left(plain.leaves)


def test_sampled_lists_follow_the_law_over_the_items_that_are_left() -> None:
    codes = [(0, 0), (0, 2), (1, 0), (1, 1), (1, 1), (2, 2)]
    catalog = Catalog(torch.tensor(codes), [str(item) for item in range(len(codes))])
    vocabulary = SemanticIDVocabulary((3, 3))
    model = tiny_target(vocabulary, dtype=torch.float32)
    draws = 2000
    prompts = select_rows(random_prompts(catalog, vocabulary, [3]), [0] * draws)
    prompts = replace(prompts, excluded=excluded_leaves(catalog, [[0, 3, 5]] * draws, 2))  # of (1, 1) one item is left
    request = ListRequest.build(catalog, vocabulary, 2, sampling=Sampling(1.1))
    runner = TransformersRunner(model)
    decoder = SpeculativeDecoder(random_network_draft(model, vocabulary), DynamicTree(4, 2, 8))
    lists = decoded(decoder, runner, request, prompts)
    leaves = leaf_tokens(catalog, vocabulary)
    left = [leaf for leaf, number in zip(leaves, range(5), strict=True) if number not in (0, 4)]
    law = PlainTarget(model, prompt_tokens(prompts, 0), vocabulary, left, 2).law(request.sampling, request.n_tokens)
    assert goodness_of_fit(Counter(tuple(row) for row in lists.tokens.tolist()), law) > 1e-4


@pytest.mark.parametrize("look_ahead", [0, 12, 512])
@pytest.mark.parametrize(("width", "renormalise"), [(None, False), (6, False), (6, True), (30, True)])
def test_beams_equal_plain_ones_over_the_items_that_are_left(
    look_ahead: int, width: int | None, renormalise: bool
) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    runner = TransformersRunner(tiny_target(vocabulary, seed=3))
    prompts = excluding(random_prompts(_CATALOG, vocabulary, [3, 0, 5, 1]))
    request = ListRequest.build(_CATALOG, vocabulary, _K)
    decoder = BeamDecoder(width, look_ahead, renormalise)
    lists = decoded(decoder, runner, request, prompts)
    leaves = leaf_tokens(_CATALOG, vocabulary)
    for row in range(_ROWS):
        left = left_in(row)
        tokens = [leaves[leaf] for leaf in left]
        found = beam_search(runner.model, prompt_tokens(prompts, row), tokens, width or _K, renormalise)[:_K]
        assert lists.leaves[row].tolist() == [left[leaf] for leaf, _ in found]
        scores = [score for _, score in found]
        of_items = torch.nn.functional.pad(lists.log_probs[row], (0, 1)).view(_K, -1).sum(1)
        assert of_items.tolist() == pytest.approx(scores, abs=1e-9)
        alone = decoded(decoder, runner, request, select_rows(prompts, [row]))
        assert alone.leaves[0].tolist() == lists.leaves[row].tolist()
    assert_only_left(lists.leaves)


@pytest.mark.parametrize("decoder", [AutoregressiveDecoder(), BeamDecoder()], ids=["list", "beam"])
def test_batches_that_exclude_and_those_that_do_not_take_turns(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured_loop, "CapturedGraph", SlowGraph)
    monkeypatch.setattr(SlowGraph, "made", 0)
    monkeypatch.setattr(SlowGraph, "seconds", 0.0)
    vocabulary = SemanticIDVocabulary(_SIZES)
    runner = TransformersRunner(tiny_target(vocabulary))
    prompts = random_prompts(_CATALOG, vocabulary, [3, 0, 5, 1])
    session = decoder.bind(runner, ListRequest.build(_CATALOG, vocabulary, _K))

    def leaves(prompts: Prompts) -> list[list[int]]:
        found: list[list[int]] = session.decode(prompts, torch.Generator())[0].leaves.tolist()
        return found

    every, some = leaves(prompts), leaves(excluding(prompts))
    made = SlowGraph.made
    nothing = replace(prompts, excluded=torch.full((4, 20), -1))
    assert leaves(nothing) == every
    assert leaves(excluding(prompts)) == some != every
    assert leaves(prompts) == every
    assert SlowGraph.made - made <= 1, "only another number of excluded leaves has a start of its own"


def test_requests_and_decoders_that_cannot_exclude_refuse() -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    runner = TransformersRunner(tiny_target(vocabulary))
    prompts = excluding(random_prompts(_CATALOG, vocabulary, [3, 0, 5, 1]))
    free = ListRequest.build(_CATALOG, vocabulary, _K, constrained=False)
    with pytest.raises(InputError, match="items to exclude without a constraint: expected constraint: catalog"):
        decoded(AutoregressiveDecoder(), runner, free, prompts)
    text = TextRequest(vocabulary.size, 5)
    with pytest.raises(InputError, match="items to exclude from a text"):
        AutoregressiveDecoder().bind(runner, text).decode(prompts, torch.Generator())
    request = ListRequest.build(_CATALOG, vocabulary, _K)
    for decoder in (TransformersDecoder(), TransformersBeamDecoder()):
        with pytest.raises(InputError, match="prompts that exclude items: expected a decoder of padrec's own"):
            decoded(decoder, runner, request, prompts)
