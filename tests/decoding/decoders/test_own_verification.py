"""A verification rule of one's own: a worked example of `VerificationRule`, beside a plain reference."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    CatalogDraft,
    Chain,
    Choice,
    ChosenTokens,
    Constraint,
    DynamicTree,
    ListRequest,
    ListState,
    SpeculativeDecoder,
    TokenTree,
    TransformersRunner,
    VerificationRule,
    choose,
    masked_log_softmax,
)
from padrec.decoding.rounds import rounds
from padrec.decoding.rounds.acceptance import verify_round
from tests.reference import forward, prompt_tokens
from tests.stubs import OracleDraft, RandomDraft, random_catalog, random_network_draft, random_prompts, tiny_target

_SIZES, _K = (5, 6, 4), 3
_CATALOG = random_catalog(_SIZES, 30)
_VOCABULARY = SemanticIDVocabulary(_SIZES)


@dataclass(frozen=True)
class TopKVerification(VerificationRule):
    """Emits a proposed token that is among the target's k best, the longest such path; else the target's own choice."""

    k: int

    lossless = False

    def emit(self, tree: TokenTree, logits: Tensor, choice: Choice, constraint: Constraint[ListState]) -> ChosenTokens:
        log_probs = masked_log_softmax(logits, constraint.allowed(tree.states))  # [B, N, V]
        least = log_probs.topk(self.k).values[..., -1]
        at_parent = log_probs.gather(1, tree.parents[..., None].expand_as(log_probs))
        own = at_parent.gather(-1, tree.tokens[..., None])[..., 0]  # of each node's token
        acceptable = (own >= least.gather(1, tree.parents)) & (own > -torch.inf) & tree.present
        acceptable[:, 0] = True
        on_path = (acceptable[:, None] | ~tree.ancestors).all(-1)
        # How deep an acceptable path goes on below each node.
        reach = torch.where(on_path, tree.depths, -1)[:, None].masked_fill(~tree.ancestors.transpose(1, 2), -1).amax(-1)
        node = torch.arange(tree.tokens.shape[1], device=tree.tokens.device)
        is_child = (tree.parents[:, None] == node[:, None]) & (node > 0) & on_path[:, None]
        best, child = torch.where(is_child, reach[:, None], -1).max(-1)  # [B, N], of equal ones any
        chosen = choose(logits, tree.states, tree.depths, choice, constraint).tokens
        tokens = torch.where(best >= 0, tree.tokens.gather(1, child), chosen)
        return ChosenTokens(
            tokens, log_probs.gather(-1, tokens[..., None])[..., 0].float(), constraint.advance(tree.states, tokens)
        )


def reference_list(
    model: PreTrainedModel, request: ListRequest, prompt: list[int], wanted: list[int], k: int
) -> list[int]:
    """Token by token: the wanted token where it is among the k best that are allowed, else the best."""
    tokens: list[int] = []
    state = request.constraint.initial(1, torch.device("cpu"))
    while len(tokens) < request.n_tokens:
        allowed = request.constraint.allowed(state)
        assert allowed is not None
        log_probs = masked_log_softmax(forward(model, prompt + tokens)[0][-1][None], allowed)[0]
        best = log_probs.topk(k)
        token = wanted[len(tokens)]
        good = log_probs[token] >= best.values[-1] and log_probs[token] > -torch.inf
        # The first token is the target's own: it comes before any proposal.
        tokens.append(token if good and tokens else int(best.indices[0]))
        state = request.constraint.advance(state, torch.tensor([tokens[-1]]))
    return tokens


@pytest.mark.parametrize("k", [1, 2, 4])
def test_a_rule_decides_what_rounds_emit(k: int) -> None:
    """A chain that proposes another user's list: every proposed token is kept exactly where the rule accepts it."""
    model = tiny_target(_VOCABULARY)
    prompts = random_prompts(_CATALOG, _VOCABULARY, [3, 0, 4])
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K)
    runner = TransformersRunner(model)
    own, _ = AutoregressiveDecoder().bind(runner, request).decode(prompts, torch.Generator())
    others = own.tokens.roll(1, 0)
    decoder = SpeculativeDecoder(OracleDraft(others, _VOCABULARY), Chain(1), False, TopKVerification(k))
    assert not decoder.lossless
    found, trace = decoder.bind(runner, request).decode(prompts, torch.Generator())
    for row in range(3):
        prompt = prompt_tokens(prompts, row)
        written = found.tokens[row].tolist()
        # Whatever was written stays within the catalog, and log-probabilities are the target's own.
        assert sorted(set(found.leaves[row].tolist())) == sorted(found.leaves[row].tolist())
        state = request.constraint.initial(1, torch.device("cpu"))
        for place, token in enumerate(written):
            allowed = request.constraint.allowed(state)
            log_probs = masked_log_softmax(forward(model, prompt + written[:place])[0][-1][None], allowed)[0]
            assert float(log_probs[token]) == pytest.approx(float(found.log_probs[row, place]), abs=1e-5)
            assert log_probs[token] >= log_probs.topk(k).values[-1], "among the k best"
            state = request.constraint.advance(state, torch.tensor([token]))
    if k == 1:
        assert torch.equal(found.tokens, own.tokens), "the best token alone is the target's own choice"
    assert trace.tokens.tolist() == [request.n_tokens] * 3


@pytest.mark.parametrize("k", [1, 3])
def test_a_long_chain_is_kept_as_far_as_the_rule_goes(k: int) -> None:
    model = tiny_target(_VOCABULARY)
    prompts = random_prompts(_CATALOG, _VOCABULARY, [3, 0, 4])
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K)
    runner = TransformersRunner(model)
    own, _ = AutoregressiveDecoder().bind(runner, request).decode(prompts, torch.Generator())
    wanted = own.tokens.roll(1, 0)
    wanted[:, 0] = own.tokens[:, 0]
    # As long as the chain proposes a token at every place, the list is that of the plain reference.
    decoder = SpeculativeDecoder(OracleDraft(wanted, _VOCABULARY), Chain(request.n_tokens), False, TopKVerification(k))
    found, _ = decoder.bind(runner, request).decode(prompts, torch.Generator())
    expected = [
        reference_list(model, request, prompt_tokens(prompts, row), wanted[row].tolist(), k) for row in range(3)
    ]
    for row in range(3):
        # A round ends where the rule rejects; the bonus token after it is the target's own.
        first = next(
            (at for at in range(1, request.n_tokens) if expected[row][at] != wanted[row, at]), request.n_tokens
        )
        assert found.tokens[row, :first].tolist() == expected[row][:first]


@pytest.mark.parametrize("k", [1, 2])
def test_trees_of_a_network_stay_in_the_catalog_under_a_relaxed_rule(k: int) -> None:
    model = tiny_target(_VOCABULARY)
    prompts = random_prompts(_CATALOG, _VOCABULARY, [3, 0, 4, 1])
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K)
    runner = TransformersRunner(model)
    for draft in (random_network_draft(model, _VOCABULARY), RandomDraft(_VOCABULARY)):
        exact, exact_trace = (
            SpeculativeDecoder(draft, DynamicTree(4, 3, 12)).bind(runner, request).decode(prompts, torch.Generator())
        )
        decoder = SpeculativeDecoder(draft, DynamicTree(4, 3, 12), verification=TopKVerification(k))
        found, trace = decoder.bind(runner, request).decode(prompts, torch.Generator())
        assert (found.leaves >= 0).all()
        assert all(len(set(leaves)) == _K for leaves in found.leaves.tolist())
        if k == 1:
            assert torch.equal(found.tokens, exact.tokens)
        elif isinstance(draft, RandomDraft):
            assert trace.target_passes.sum() <= exact_trace.target_passes.sum() + len(found.leaves)


def test_a_round_and_its_rule_are_one_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, where every graph more costs launches."""
    request = ListRequest.build(_CATALOG, _VOCABULARY, _K)
    runner, prompts = TransformersRunner(tiny_target(_VOCABULARY)), random_prompts(_CATALOG, _VOCABULARY, [3, 0])
    decoder = SpeculativeDecoder(CatalogDraft(), Chain(2), verification=TopKVerification(2))
    expected, _ = decoder.bind(runner, request).decode(prompts, torch.Generator().manual_seed(0))
    plain: Any = verify_round
    as_graph = torch.compile(plain.__wrapped__, fullgraph=True, dynamic=False, backend="eager")
    monkeypatch.setattr(rounds, "verify_round", as_graph)
    found, _ = decoder.bind(runner, request).decode(prompts, torch.Generator().manual_seed(0))
    assert torch.equal(found.tokens, expected.tokens)
