"""A relaxed rule with a budget for each text."""

from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.catalog import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveInt, check_arguments
from padrec.decoding.lists.constraint import Constraint
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.relaxed_verification import JudgedTree
from padrec.decoding.lists.sampling import Choice
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.lists.verification import ChosenTokens, VerificationRule


@dataclass(frozen=True)
class BoundedVerification(VerificationRule):
    """`RelaxedVerification` within a budget for each text or list; not lossless.

    Two things are counted over a whole text: tokens that are not the target's own choice, and the log-probability given
    up by them, Σ max(0, log p(choice) - log p(token)) in nats. A path is acceptable as long as both stay within their
    bounds. So in greedy decoding a text's probability is at least e^-`max_divergence` of the product of the target's
    best choices along it. Once the budget is spent, the target's own choices follow.

    Args:
        top_k: see `RelaxedVerification`.
        threshold: see `RelaxedVerification`.
        max_relaxed: most tokens of a text that are not the target's choice.
        max_divergence: most nats that a text gives up.

    Raises:
        InputError: an argument out of range.
    """

    top_k: PositiveInt = 2
    threshold: ClosedUnitInterval = 0.1
    max_relaxed: NonNegativeInt = 8
    max_divergence: NonNegativeFloat = 4.0

    lossless = False

    def __post_init__(self) -> None:
        check_arguments(BoundedVerification, vars(self))

    def open(self, batch: int, device: torch.device) -> "_Budget":
        """See `VerificationRule.open`."""
        return _Budget(self, batch, device)

    def emit(self, tree: TokenTree, logits: Tensor, choice: Choice, constraint: Constraint[ListState]) -> ChosenTokens:
        """Emit the first round of a text; see `VerificationRule.emit`."""
        return self.open(len(tree.tokens), logits.device).emit(tree, logits, choice, constraint)


class _Budget(VerificationRule):
    """What the texts of a batch have spent."""

    lossless = False

    def __init__(self, rule: BoundedVerification, batch: int, device: torch.device) -> None:
        self._rule = rule
        self.relaxed = torch.zeros(batch, dtype=torch.long, device=device)
        self.nats = torch.zeros(batch, dtype=torch.float32, device=device)

    def begin(self) -> None:
        self.relaxed.zero_()
        self.nats.zero_()

    def emit(self, tree: TokenTree, logits: Tensor, choice: Choice, constraint: Constraint[ListState]) -> ChosenTokens:
        rule, judged = self._rule, JudgedTree.of(tree, logits, choice, constraint)
        lost = (judged.own.log_probs.gather(1, tree.parents) - judged.given).clamp(min=0).float()
        relaxed = self.relaxed[:, None] + judged.on_paths((~judged.is_own).long())  # [B, N]
        nats = self.nats[:, None] + judged.on_paths(torch.where(judged.is_own, 0, lost))
        affordable = (relaxed <= rule.max_relaxed) & (nats <= rule.max_divergence)
        end = judged.longest(judged.is_own | (judged.is_good(rule.top_k, rule.threshold) & affordable))
        self.relaxed.copy_(relaxed.gather(1, end[:, None])[:, 0])
        self.nats.copy_(nats.gather(1, end[:, None])[:, 0])
        return judged.emit(end, constraint)
