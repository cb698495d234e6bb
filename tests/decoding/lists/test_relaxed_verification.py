"""The relaxed rule and the one with a budget, beside a plain search through all paths of a tree."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    BoundedVerification,
    DynamicTree,
    ListRequest,
    ListState,
    RelaxedVerification,
    Sampling,
    SpeculativeDecoder,
    TextRequest,
    TokenTree,
    TransformersRunner,
    VerificationRule,
    masked_log_softmax,
)
from padrec.decoding.lists.constraint import Unconstrained
from padrec.decoding.lists.verification import accept
from tests.reference import forward, prompt_tokens
from tests.stubs import RandomDraft, random_catalog, random_prompts, tiny_target

_SIZES, _K, _V = (5, 6, 4), 3, 5
_CATALOG = random_catalog(_SIZES, 30)
_VOCABULARY = SemanticIDVocabulary(_SIZES)
_GREEDY = Sampling().choice(torch.zeros(1).long(), torch.zeros(1).long(), 0, _V)


def random_tree(n_nodes: int, generator: torch.Generator) -> TokenTree:
    """A tree whose siblings differ."""
    parents, children, tokens = [0], {0: set[int]()}, [0]
    while len(parents) < n_nodes:
        parent = int(torch.randint(len(parents), (1,), generator=generator))
        token = int(torch.randint(_V, (1,), generator=generator))
        if token not in children[parent]:
            children[parent].add(token)
            children[len(parents)] = set()
            parents.append(parent)
            tokens.append(token)
    states = ListState(torch.zeros(1, n_nodes, dtype=torch.long))
    present = torch.rand(1, n_nodes, generator=generator) < 0.9
    present[:, 0] = True
    return TokenTree.from_parents(torch.tensor([tokens]), torch.tensor([parents]), states, n_nodes, present=present)


def plain_path(tree: TokenTree, log_probs: list[list[float]], rule: BoundedVerification) -> list[int]:
    """The tokens of the longest path that the rule accepts, of equally long ones the most probable."""
    tokens, parents, present = (values[0].tolist() for values in (tree.tokens, tree.parents, tree.present))

    def paths(node: int) -> list[list[int]]:
        children = [child for child in range(1, len(parents)) if parents[child] == node and present[child]]
        return [[], *([child, *rest] for child in children for rest in paths(child))]

    def value(path: list[int]) -> tuple[int, float] | None:
        relaxed, nats, total = 0, 0.0, 0.0
        for node in path:
            given, at_parent = log_probs[parents[node]][tokens[node]], log_probs[parents[node]]
            total += given
            if tokens[node] != at_parent.index(max(at_parent)):
                relaxed, nats = relaxed + 1, nats + max(at_parent) - given
                good = given >= sorted(at_parent)[-rule.top_k] and math.exp(given) > rule.threshold
                if not good or relaxed > rule.max_relaxed or nats > rule.max_divergence:
                    return None
        return len(path), total

    values = [(found, path) for path in paths(0) if (found := value(path)) is not None]
    return [tokens[node] for node in max(values)[1]]


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    top_k=st.integers(1, _V),
    threshold=st.sampled_from([0.0, 0.1, 0.3]),
    max_relaxed=st.integers(0, 3),
    max_divergence=st.sampled_from([0.0, 0.5, 2.0]),
)
def test_the_longest_path_within_the_budget_is_emitted(
    seed: int, top_k: int, threshold: float, max_relaxed: int, max_divergence: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    tree = random_tree(9, generator)
    logits = 1.5 * torch.randn(1, 9, _V, generator=generator)
    log_probs = logits.log_softmax(-1)[0].tolist()
    rules: list[tuple[VerificationRule, BoundedVerification]] = [
        (bounded := BoundedVerification(top_k, threshold, max_relaxed, max_divergence), bounded),
        (RelaxedVerification(top_k, threshold), BoundedVerification(top_k, threshold, 99, 99.0)),
    ]
    for rule, settings_of_reference in rules:
        chosen = rule.emit(tree, logits, _GREEDY, Unconstrained())
        kept = accept(tree, chosen.tokens)
        emitted = kept.emitted[0, : int(kept.count)].tolist()
        assert emitted == plain_path(tree, log_probs, settings_of_reference)
        end = int(kept.path[0, int(kept.count)])
        assert int(chosen.tokens[0, end]) == int(logits[0, end].argmax()), "then the target's own choice"


@pytest.mark.parametrize(
    "rule", [RelaxedVerification(1, 0.0), BoundedVerification(5, 0.0, 0), BoundedVerification(5, 0.0, 9, 0.0)]
)
def test_a_rule_without_freedom_is_exact(rule: VerificationRule) -> None:
    runner, prompts = TransformersRunner(tiny_target(_VOCABULARY)), random_prompts(_CATALOG, _VOCABULARY, [3, 0, 4])
    requests: list[Any] = [
        ListRequest.build(_CATALOG, _VOCABULARY, _K),
        TextRequest(_VOCABULARY.size, 20, (3,)),
    ]
    for request in requests:
        expected, _ = AutoregressiveDecoder().bind(runner, request).decode(prompts, torch.Generator())
        decoder = SpeculativeDecoder(RandomDraft(_VOCABULARY), DynamicTree(4, 3, 12), verification=rule)
        assert not decoder.lossless
        found, _ = decoder.bind(runner, request).decode(prompts, torch.Generator())
        assert torch.equal(found.tokens, expected.tokens)


@pytest.mark.parametrize("rule", [BoundedVerification(4, 0.01, 2, 9.0), BoundedVerification(4, 0.01, 9, 1.5)])
def test_a_budget_holds_over_all_rounds_of_a_list_and_starts_anew(rule: BoundedVerification) -> None:
    model = tiny_target(_VOCABULARY)
    request = ListRequest.build(_CATALOG, _VOCABULARY, 4)
    decoder = SpeculativeDecoder(RandomDraft(_VOCABULARY), DynamicTree(4, 4, 24), verification=rule)
    session = decoder.bind(TransformersRunner(model), request)
    spent = []
    for seed in range(3):
        prompts = random_prompts(_CATALOG, _VOCABULARY, [3, 0, 4], seed=seed)
        found, _ = session.decode(prompts, torch.Generator())
        assert (found.leaves >= 0).all()
        for row in range(3):
            relaxed, nats, state = 0, 0.0, request.constraint.initial(1, torch.device("cpu"))
            written = found.tokens[row].tolist()
            for place, token in enumerate(written):
                logits = forward(model, prompt_tokens(prompts, row) + written[:place])[0][-1][None]
                log_probs = masked_log_softmax(logits, request.constraint.allowed(state))[0]
                relaxed += token != int(log_probs.argmax())
                nats += float(log_probs.max() - log_probs[token])
                state = request.constraint.advance(state, torch.tensor([token]))
            assert relaxed <= rule.max_relaxed
            assert nats <= rule.max_divergence + 1e-5
            spent.append(relaxed)
    assert max(spent) > 0
