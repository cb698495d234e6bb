import math
from typing import Any

import pytest
import torch
from torch import Tensor

from padrec.catalog import InputError
from padrec.drafts import DraftObjective, agreement_by_slot


def random_predictions() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """f̂ and f `[6, 4]`, some far apart; draft and target logits `[6, 9]`."""
    generator = torch.Generator().manual_seed(0)
    predicted, features = 2 * torch.randn(2, 6, 4, generator=generator)
    draft_logits, target_logits = torch.randn(2, 6, 9, generator=generator)
    return predicted, features, draft_logits, target_logits


def plain_softmax(logits: list[float]) -> list[float]:
    total = sum(math.exp(logit) for logit in logits)
    return [math.exp(logit) / total for logit in logits]


def plain_loss(
    objective: DraftObjective, predicted: list[float], feature: list[float], ours: list[float], theirs: list[float]
) -> float:
    """The loss of one token."""
    gaps = [abs(a - b) for a, b in zip(predicted, feature, strict=True)]
    regression = sum(0.5 * gap**2 if gap < 1 else gap - 0.5 for gap in gaps) / len(gaps)
    p, q = plain_softmax(theirs), plain_softmax(ours)
    soft = -sum(a * math.log(b) for a, b in zip(p, q, strict=True))
    best = sorted(range(len(p)), key=lambda token: -p[token])[: objective.top_k]
    top = -sum(p[token] * math.log(q[token]) for token in best)
    return objective.feature_weight * regression + objective.soft_weight * soft + objective.top_k_weight * top


@pytest.mark.parametrize(
    "objective",
    [
        DraftObjective(),
        DraftObjective(feature_weight=0),
        DraftObjective(feature_weight=0.3, soft_weight=0, top_k_weight=0.7, top_k=3),
        DraftObjective(top_k_weight=1.0, top_k=50),
    ],
)
def test_loss_of_every_token(objective: DraftObjective) -> None:
    values = random_predictions()
    loss = objective(*values)
    assert loss.dtype == torch.float32
    expected = [plain_loss(objective, *rows) for rows in zip(*(value.tolist() for value in values), strict=True)]
    torch.testing.assert_close(loss, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_loss_is_taken_in_single_precision() -> None:
    predicted, features, draft_logits, target_logits = (value.bfloat16() for value in random_predictions())
    loss = DraftObjective()(predicted, features, draft_logits, target_logits)
    exact = DraftObjective()(predicted.float(), features.float(), draft_logits.float(), target_logits.float())
    assert torch.equal(loss, exact)


def test_no_token_has_no_loss() -> None:
    assert DraftObjective()(*(value[:0] for value in random_predictions())).shape == (0,)


@pytest.mark.parametrize(
    "arguments",
    [
        {"feature_weight": -1.0},
        {"top_k": 0},
    ],
)
def test_an_objective_without_meaning_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"(feature_weight|top_k) .*, expected "):
        DraftObjective(**arguments)


def test_agreement_counts_best_tokens_by_slot() -> None:
    _, _, draft_logits, target_logits = random_predictions()
    draft_logits[:3] = 3 * target_logits[:3]
    draft_logits[4] = 3 * target_logits[4]
    slots = torch.tensor([0, 1, 1, 3, 3, 0])
    counted = torch.tensor([True, True, True, True, False, True])
    counts = agreement_by_slot(draft_logits, target_logits, slots, counted, 5)
    expected = torch.zeros(2, 5, dtype=torch.float64)
    tokens = zip(draft_logits.tolist(), target_logits.tolist(), slots.tolist(), counted.tolist(), strict=True)
    for ours, theirs, slot, counts_here in tokens:
        expected[0, slot] += counts_here and ours.index(max(ours)) == theirs.index(max(theirs))
        expected[1, slot] += counts_here
    assert torch.equal(counts, expected)
    assert counts[0].sum() >= 3
    assert torch.equal(counts[1], torch.tensor([2.0, 2.0, 0.0, 1.0, 0.0], dtype=torch.float64))
