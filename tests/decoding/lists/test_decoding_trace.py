"""A decoder's counts against a recount from the proposals that its draft logged and the lists that came out."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    Chain,
    Decoder,
    DecodingTrace,
    DynamicTree,
    ListRequest,
    Observation,
    Recommendations,
    RoundStatistics,
    Sampling,
    SpeculativeDecoder,
    StaticTree,
    TokenTree,
    TransformersRunner,
    TreeContext,
    TreeExpansion,
)
from padrec.decoding.layers.runner import TransformersSession
from tests import reference
from tests.stubs import LoggingDraft, RandomDraft, random_catalog, random_network_draft, random_prompts, tiny_target

_SIZES, _K = (5, 4, 3), 3
_CATALOG = random_catalog(_SIZES, 20)
_EXPANSIONS: dict[str, TreeExpansion] = {
    "chain": Chain(4),
    "static": StaticTree([[0], [1], [2], [0, 0], [0, 1], [1, 0], [0, 0, 0]]),
    "dynamic": DynamicTree(depth=5, width=3, nodes=14),
}


@dataclass
class Recount:
    """Plain counts, grown token by token."""

    attempted: list[list[int]]
    accepted: list[list[int]]
    accepted_lengths: list[int]
    target_passes: list[int]


class LoggingRunner(TransformersRunner):
    """A target with the trees that it verified."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self.trees: list[TokenTree] = []

    def open(self, batch: int, capacity: int, feature_layers: Sequence[int] = (-1,)) -> TransformersSession:
        session = super().open(batch, capacity, feature_layers)
        verify = session.verify

        def logged(tree: TokenTree) -> tuple[Tensor, Tensor]:
            self.trees.append(tree)
            return verify(tree)

        session.verify = logged  # type: ignore[method-assign]
        return session


def recount(
    lists: list[list[int]],
    trees: list[TokenTree],
    observations: list[Observation],
    vocabulary: SemanticIDVocabulary,
    draft_depth: int,
) -> Recount:
    """Follow every list, given without padding, through the trees of its rounds, and check what the draft was told."""
    max_depth = trees[0].max_depth
    empty = [[0] * max_depth for _ in range(vocabulary.n_slot_states)]
    counts = Recount(empty, [row[:] for row in empty], [0] * (max_depth + 1), [0] * len(lists))
    for row, tokens in enumerate(lists):
        slots, slot = [], vocabulary.other_slot
        for token in tokens:
            slot = reference.next_slot(vocabulary, slot, token)
            slots.append(slot)
        position = 1  # the first token comes from the prefill
        for tree, seen in zip(trees, observations, strict=True):
            rest = tokens[position:]
            assert int(seen.count[row]) == 0 or rest, "nothing is observed after a list's end"
            if not rest:
                continue
            parents, node_tokens = tree.parents[row].tolist(), tree.tokens[row].tolist()
            present = tree.present[row].tolist()
            assert node_tokens[0] == tokens[position - 1], "the root is the list's last token"
            assert tree.states.slot[row, 0] == slots[position - 1]
            node, kept = 0, 0
            while kept < min(len(rest), max_depth):
                children = [child for child in range(1, len(parents)) if parents[child] == node and present[child]]
                following = [child for child in children if node_tokens[child] == rest[kept]]
                # Deeper than the draft could go, only what was proposed counts.
                counts.attempted[slots[position + kept]][kept] += bool(following) or kept < draft_depth
                if not following:
                    break
                counts.accepted[slots[position + kept]][kept] += 1
                node, kept = following[0], kept + 1
            counts.accepted_lengths[kept] += 1
            counts.target_passes[row] += 1
            emitted = min(kept + 1, len(rest))
            assert int(seen.count[row]) == emitted
            assert seen.tokens[row, :emitted].tolist() == rest[:emitted]
            assert seen.slots[row, :emitted].tolist() == slots[position : position + emitted]
            position += emitted
        assert position == len(tokens)
    return counts


def decode(decoder: Decoder, runner: TransformersRunner, request: ListRequest) -> tuple[Recommendations, DecodingTrace]:
    prompts = random_prompts(_CATALOG, request.vocabulary, [3, 0, 1, 5, 2, 2, 4, 1])
    return decoder.bind(runner, request).decode(prompts, torch.Generator().manual_seed(3))


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.5)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("constrained", [True, False], ids=["catalog", "free"])
@pytest.mark.parametrize("separator", [True, False], ids=["separator", "dense"])
@pytest.mark.parametrize("forced", [True, False], ids=["forced", "plain"])
@pytest.mark.parametrize("name", _EXPANSIONS)
def test_counts_equal_a_plain_recount(
    sampling: Sampling, constrained: bool, separator: bool, forced: bool, name: str
) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES, separator=separator, shared_codes=True)
    model, expansion = tiny_target(vocabulary), _EXPANSIONS[name]
    request = ListRequest.build(_CATALOG, vocabulary, _K, constrained=constrained, sampling=sampling)
    for draft in (RandomDraft(vocabulary), random_network_draft(model, vocabulary)):
        log, runner = LoggingDraft(draft), LoggingRunner(model)
        decoder = SpeculativeDecoder(log, expansion, forced)
        lists, trace = decode(decoder, runner, request)
        run = request.constraint.longest_run if forced else 0
        assert trace.accepted.shape == (vocabulary.n_slot_states, expansion.depth + run)
        assert expansion.depth + run == decoder.max_depth(request)
        written = [row[:n] for row, n in zip(lists.tokens.tolist(), trace.tokens.tolist(), strict=True)]
        expected = recount(written, runner.trees, log.observations, vocabulary, expansion.depth)
        assert trace.attempted.tolist() == expected.attempted
        assert trace.accepted.tolist() == expected.accepted
        assert trace.accepted_lengths.tolist() == expected.accepted_lengths
        assert trace.target_passes.tolist() == expected.target_passes
        assert trace.draft_passes.tolist() == [expansion.draft_passes * n for n in expected.target_passes]
        # Every round emits what it keeps and one bonus token, except where the list ends with a kept one.
        by_depth = (torch.arange(expansion.depth + run + 1) * trace.accepted_lengths).sum()
        assert by_depth == trace.accepted.sum()
        emitted, passes = int((trace.tokens - 1).sum()), int(trace.target_passes.sum())
        assert int(by_depth) <= emitted <= int(by_depth) + passes


def test_what_is_observed_are_the_features_of_the_kept_tokens() -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    model = tiny_target(vocabulary)
    log = LoggingDraft(RandomDraft(vocabulary))
    request = ListRequest.build(_CATALOG, vocabulary, _K)
    decoder = SpeculativeDecoder(log, DynamicTree(depth=4, width=3, nodes=12))
    lists, _ = decode(decoder, TransformersRunner(model), request)
    prompts = random_prompts(_CATALOG, vocabulary, [3, 0, 1, 5, 2, 2, 4, 1])
    for row in range(8):
        prompt = reference.prompt_tokens(prompts, row)
        _, features = reference.forward(model, prompt + lists.tokens[row].tolist())
        place = len(prompt)
        for seen in log.observations:
            count = int(seen.count[row])
            torch.testing.assert_close(seen.features[row, :count], features[place : place + count], rtol=0, atol=1e-9)
            place += count


@pytest.mark.parametrize("sampling", [Sampling(2.0), Sampling()], ids=["sampled", "greedy"])
def test_a_list_that_ends_early_does_not_disturb_the_others(sampling: Sampling) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES, shared_codes=True)
    model = tiny_target(vocabulary, seed=1)
    prompts = random_prompts(_CATALOG, vocabulary, [n % 6 for n in range(40)], seed=5)
    request = ListRequest.build(_CATALOG, vocabulary, _K, constrained=False, sampling=sampling)
    runner = TransformersRunner(model)
    expected, reference_trace = (
        AutoregressiveDecoder().bind(runner, request).decode(prompts, torch.Generator().manual_seed(0))
    )
    lengths = reference_trace.tokens.tolist()
    assert min(lengths) < request.n_tokens == max(lengths), "some lists end early, some do not"
    for row, n in enumerate(lengths):
        tokens = expected.tokens[row].tolist()
        assert (vocabulary.eos_token in tokens) == (tokens[n - 1] == vocabulary.eos_token)
        assert tokens[n:] == [vocabulary.pad_token] * (request.n_tokens - n)
        assert expected.log_probs[row, n:].tolist() == [0.0] * (request.n_tokens - n)
    for expansion in _EXPANSIONS.values():
        decoder = SpeculativeDecoder(RandomDraft(vocabulary), expansion)
        found, trace = decoder.bind(runner, request).decode(prompts, torch.Generator().manual_seed(0))
        assert torch.equal(found.tokens, expected.tokens)
        assert torch.equal(found.leaves, expected.leaves)
        assert torch.equal(trace.tokens, reference_trace.tokens)
        assert ((trace.target_passes == 0) == (trace.tokens == 1)).all()
        torch.testing.assert_close(found.log_probs, expected.log_probs, rtol=0, atol=1e-5)


class SilentTree(Chain):
    """Proposes nothing, though it could."""

    def expand(self, context: TreeContext) -> TokenTree:
        root = context.root[:, None]
        return TokenTree.from_parents(root, torch.zeros_like(root), context.state.unsqueeze(), self.depth)


def test_a_round_without_proposals_misses_its_first_depth() -> None:
    vocabulary = SemanticIDVocabulary(_SIZES)
    request = ListRequest.build(_CATALOG, vocabulary, _K)
    decoder = SpeculativeDecoder(RandomDraft(vocabulary), SilentTree(3), forced_tokens=False)
    _, trace = decode(decoder, TransformersRunner(tiny_target(vocabulary)), request)
    n_rounds = 8 * (request.n_tokens - 1)
    assert trace.attempted.sum(0).tolist() == [n_rounds, 0, 0]
    assert int(trace.accepted.sum()) == 0
    assert trace.accepted_lengths.tolist() == [n_rounds, 0, 0, 0]


def test_rounds_of_finished_rows_do_not_count() -> None:
    statistics = RoundStatistics(batch=2, n_slot_states=3, max_depth=2, device=torch.device("cpu"))
    active = torch.tensor([True, False])
    statistics.add_round(active, draft_passes=4)
    statistics.add_proposals(torch.tensor([[0, 1], [2, 2]]), torch.tensor([1, 2]), torch.tensor([2, 2]), active)
    trace = DecodingTrace.of_counts(0.25, 0.5, torch.tensor([3, 1]), statistics.counts)
    assert trace.attempted.tolist() == [[1, 0], [0, 1], [0, 0]]
    assert trace.accepted.tolist() == [[1, 0], [0, 0], [0, 0]]
    assert trace.accepted_lengths.tolist() == [0, 1, 0]
    assert (trace.target_passes.tolist(), trace.draft_passes.tolist()) == ([1, 0], [4, 0])
    assert (trace.seconds, trace.batch_size) == (0.75, 2)
