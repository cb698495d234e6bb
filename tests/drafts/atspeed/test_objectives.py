"""The objectives against sums written out, and where they have to be zero."""

import math

import pytest
import torch
from torch import Tensor

from padrec.catalog import CatalogTrie, SemanticIDVocabulary
from padrec.drafts import (
    TVDKD,
    AdaptiveAcceptance,
    DistillationObjective,
    LogAcceptance,
    SeqKD,
    TopKAlignment,
    TotalVariation,
    WordKD,
)
from padrec.drafts.atspeed import CodeChoices, nodes_before, prefix_nodes
from tests.stubs import random_catalog

_CATALOG, _VOCABULARY = random_catalog((4, 5, 6), 12), SemanticIDVocabulary((4, 5, 6))
_TRIE = CatalogTrie(_CATALOG, _VOCABULARY)
_ITEMS = _VOCABULARY.encode(_CATALOG.leaf_codes)[:, :3]  # [n_leaves, L]
_NODES = prefix_nodes(_TRIE, _ITEMS).flatten()


def logits(seed: int) -> Tensor:
    """After every prefix of every item, float64 `[M, V]`."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(_ITEMS.numel(), _VOCABULARY.size, generator=generator, dtype=torch.float64)


def choices(draft: Tensor, target: Tensor) -> CodeChoices:
    return CodeChoices.of(draft, target, _NODES, _ITEMS.flatten(), _TRIE)


def allowed(row: int) -> list[int]:
    """The codes with which some item continues the row's prefix."""
    item, slot = divmod(row, 3)
    same = (_ITEMS[:, :slot] == _ITEMS[item, :slot]).all(1)
    return sorted(set(_ITEMS[same, slot].tolist()))


def outcomes(logits: Tensor, row: int, temperature: float) -> list[float]:
    """Chances of the codes that may follow."""
    chances = logits[row].softmax(-1)[allowed(row)].tolist()
    powers = [chance ** (1 / temperature) for chance in chances]
    return [power / sum(powers) for power in powers]


def top_k_alignment(q: list[float], p: list[float], top_k: int) -> float:
    best = sorted(range(len(q)), key=lambda x: -q[x])[:top_k]
    q, p = ([values[x] / sum(values[x] for x in best) for x in best] for values in (q, p))
    kth = p[-1] if len(best) == top_k else 0.0  # none of K-th rank
    divergence = sum(a * math.log(a / b) for a, b in zip(q, p, strict=True))
    return divergence - kth * sum(a * math.log(a) for a in q)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_objectives_equal_the_sums_of_their_docstrings(temperature: float) -> None:
    draft, target = logits(0), logits(1)
    found = choices(draft, target)
    strict = TopKAlignment(top_k=2, temperature=temperature)(found)
    relaxed, word, sequence = TotalVariation(temperature)(found), WordKD()(found), SeqKD()(found)
    log_acceptance, adaptive = LogAcceptance()(found), AdaptiveAcceptance(decay=2.0)(found)
    for row in range(len(draft)):
        q, p = (outcomes(values, row, temperature) for values in (draft, target))
        assert float(strict[row]) == pytest.approx(top_k_alignment(q, p, 2), abs=1e-9)
        variation = sum(abs(a - b) for a, b in zip(q, p, strict=True)) / 2
        assert float(relaxed[row]) == pytest.approx(variation, abs=1e-9)
        if temperature == 1:
            divergence = sum(b * math.log(b / a) for a, b in zip(q, p, strict=True) if b > 0)
            assert float(word[row]) == pytest.approx(divergence, abs=1e-9)
            accepted = sum(min(a, b) for a, b in zip(q, p, strict=True))
            assert float(log_acceptance[row]) == pytest.approx(-math.log(accepted), abs=1e-9)
            share = math.exp(-2 * accepted)
            mixed = share * divergence + (1 - share) * variation
            assert float(adaptive[row]) == pytest.approx(mixed, abs=1e-9)
            followed = q[allowed(row).index(int(_ITEMS.flatten()[row]))]
            assert float(sequence[row]) == pytest.approx(-math.log(followed), abs=1e-9)
    torch.testing.assert_close(TVDKD(temperature)(found), relaxed, rtol=0, atol=0)


@pytest.mark.parametrize("objective", [WordKD(), TVDKD(), TotalVariation(0.7), LogAcceptance()])
def test_a_draft_equal_to_the_target_has_no_loss(objective: DistillationObjective) -> None:
    loss = objective(choices(logits(0), logits(0)))
    torch.testing.assert_close(loss, torch.zeros_like(loss), rtol=0, atol=1e-12)


def test_the_gradients_vanish_where_draft_and_target_agree() -> None:
    draft = logits(0).requires_grad_()
    WordKD()(choices(draft, logits(0))).sum().backward()
    torch.testing.assert_close(draft.grad, torch.zeros_like(draft), rtol=0, atol=1e-12)


def test_top_k_alignment_alone_is_the_entropy_that_it_adds() -> None:
    found = choices(logits(0), logits(0))
    log_q = found.draft.topk(2).values.log_softmax(-1)
    entropy = -(log_q.exp() * log_q).sum(-1)
    torch.testing.assert_close(TopKAlignment(top_k=2)(found), log_q[:, -1].exp() * entropy, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "objective", [TopKAlignment(), TopKAlignment(2, 0.01), TotalVariation(0.01), WordKD(), SeqKD()]
)
def test_gradients_are_finite_for_certain_and_impossible_codes(objective: DistillationObjective) -> None:
    draft = (1e3 * logits(0)).float().requires_grad_()
    loss = objective(choices(draft, (1e3 * logits(1)).float()))
    loss.sum().backward()
    assert draft.grad is not None
    assert bool(loss.isfinite().all() and draft.grad.isfinite().all())


def test_only_what_the_catalog_allows_has_a_gradient_of_its_own() -> None:
    draft = logits(0).requires_grad_()
    TopKAlignment()(choices(draft, logits(1))).sum().backward()
    assert draft.grad is not None
    for row, gradient in enumerate(draft.grad):
        assert set(gradient.nonzero().flatten().tolist()) <= set(allowed(row))


def test_nodes_before_the_tokens_of_sequences_are_those_of_their_items() -> None:
    items = _VOCABULARY.encode(_CATALOG.leaf_codes)  # [n_leaves, 4], with separators
    tokens = torch.cat([torch.full((len(items) // 2, 1), _VOCABULARY.bos_token), items[::2][: len(items) // 2]], 1)
    tokens = torch.cat([tokens, items[1::2][: len(tokens)]], 1)
    slots = _VOCABULARY.sequence_slots(tokens.shape[1]).expand_as(tokens)
    found = nodes_before(_TRIE, tokens, slots)
    for start in (1, 5):
        assert torch.equal(found[:, start : start + 3], prefix_nodes(_TRIE, tokens[:, start : start + 3]))
    assert (found[:, [0, 4, 8]] == 0).all()
