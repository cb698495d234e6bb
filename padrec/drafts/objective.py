"""The training objective of feature drafts."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from padrec.catalog import NonNegativeFloat, PositiveInt, check_arguments


@dataclass(frozen=True)
class DraftObjective:
    """Feature regression, soft cross-entropy and HASS's top-k loss, each a mean over tokens.

        feature    SmoothL1(f̂, f), mean over the d features            (EAGLE)
        soft       - Σ_x p(x) log q(x)                                   (EAGLE)
        top-k      - Σ_{x in the k best of p} p(x) log q(x)              (HASS, arXiv 2408.15766)

    with p the target's and q the draft's distribution, both through the target's head.

    Args:
        feature_weight: weight of the feature loss, at least 0.
        soft_weight: weight of the soft cross-entropy, at least 0.
        top_k_weight: weight of the top-k loss, at least 0.
        top_k: k, at least 1.

    Raises:
        InputError: a value is out of range.
    """

    feature_weight: NonNegativeFloat = 1.0
    soft_weight: NonNegativeFloat = 0.1
    top_k_weight: NonNegativeFloat = 0.0
    top_k: PositiveInt = 10

    def __post_init__(self) -> None:
        check_arguments(DraftObjective, vars(self))

    @property
    def is_empty(self) -> bool:
        """Whether all weights are 0."""
        return self.feature_weight == self.soft_weight == self.top_k_weight == 0

    def __call__(self, predicted: Tensor, features: Tensor, draft_logits: Tensor, target_logits: Tensor) -> Tensor:
        """The loss of each token.

        Args:
            predicted: f̂, `[M, d]`.
            features: f, `[M, d]`.
            draft_logits: the head on f̂, `[M, V]`.
            target_logits: the head on f, `[M, V]`.

        Returns:
            float32 `[M]`.
        """
        regression = nn.functional.smooth_l1_loss(predicted.float(), features.float(), reduction="none").mean(-1)
        log_q = draft_logits.float().log_softmax(-1)
        p = target_logits.float().softmax(-1)
        loss = self.feature_weight * regression - self.soft_weight * (p * log_q).sum(-1)
        if self.top_k_weight > 0:
            best, tokens = p.topk(min(self.top_k, p.shape[-1]), dim=-1)
            loss = loss - self.top_k_weight * (best * log_q.gather(-1, tokens)).sum(-1)
        return loss


def agreement_by_slot(
    draft_logits: Tensor, target_logits: Tensor, slots: Tensor, counted: Tensor, n_slot_states: int
) -> Tensor:
    """Count where the draft's best token is the target's.

    Args:
        draft_logits: `[M, V]`.
        target_logits: `[M, V]`.
        slots: slots of the predicted tokens, int64 `[M]`.
        counted: tokens to count, bool `[M]`.
        n_slot_states: L + 2.

    Returns:
        Agreeing tokens and all tokens in each slot, float64 `[2, L + 2]`.
    """
    agrees = draft_logits.argmax(-1) == target_logits.argmax(-1)
    counts = torch.zeros(2, n_slot_states, dtype=torch.float64, device=slots.device)
    return counts.index_add(1, slots, torch.stack([agrees & counted, counted]).double())
