"""LASER's relaxed rule, for which proposals among the target's best tokens are good enough, and one with a budget."""

from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.catalog import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveInt, check_arguments
from padrec.decoding.lists.constraint import Constraint
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.sampling import Choice, masked_log_softmax
from padrec.decoding.lists.tensor_record import pick
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.lists.verification import ChosenTokens, VerificationRule, choose


@dataclass(frozen=True)
class RelaxedVerification(VerificationRule):
    """Keeps proposals among the target's `top_k` best tokens whose probability exceeds `threshold`; not lossless.

    With p over the allowed tokens at temperature 1, a proposal is acceptable if it is in top-k(p) ∩ {p > threshold}, or
    is the target's own choice (LASER, arXiv 2408.05676). A round emits the longest acceptable path, of equally long
    ones the most probable, and then the target's own choice. In greedy decoding `top_k` 1 changes nothing. Nothing
    bounds what a text loses in total; see `BoundedVerification`.

    Args:
        top_k: tokens that may take the place of the target's choice.
        threshold: probability that they must exceed.

    Raises:
        InputError: an argument out of range.
    """

    top_k: PositiveInt = 2
    threshold: ClosedUnitInterval = 0.1

    lossless = False

    def __post_init__(self) -> None:
        check_arguments(RelaxedVerification, vars(self))

    def emit(self, tree: TokenTree, logits: Tensor, choice: Choice, constraint: Constraint[ListState]) -> ChosenTokens:
        """See `VerificationRule.emit`."""
        judged = JudgedTree.of(tree, logits, choice, constraint)
        end = judged.longest(judged.is_own | judged.is_good(self.top_k, self.threshold))
        return judged.emit(end, constraint)


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


@dataclass(frozen=True)
class JudgedTree:
    """A tree, and what the target finds of its proposals."""

    tree: TokenTree
    log_probs: Tensor  # the target's at every node, over the allowed tokens, [B, N, V]
    own: ChosenTokens  # the target's choice after every node
    given: Tensor  # log-probability of each node's token at its parent, [B, N]; arbitrary for the root
    is_own: Tensor  # whether a node's token is the target's choice at its parent, bool [B, N]

    @classmethod
    def of(cls, tree: TokenTree, logits: Tensor, choice: Choice, constraint: Constraint[ListState]) -> "JudgedTree":
        """Judge the proposals; arguments as in `VerificationRule.emit`."""
        log_probs = masked_log_softmax(logits, constraint.allowed(tree.states))
        own = choose(logits, tree.states, tree.depths, choice, constraint)
        given = log_probs.flatten(1).gather(1, tree.parents * log_probs.shape[-1] + tree.tokens)
        return cls(tree, log_probs, own, given, tree.tokens == own.tokens.gather(1, tree.parents))

    def is_good(self, top_k: int, threshold: float) -> Tensor:
        """Whether each token is among the `top_k` best at its parent and more probable than `threshold`, `[B, N]`."""
        # Counted: to sort the vocabulary of a language model would cost far more.
        at_parents = pick(self.log_probs, self.tree.parents)
        n_better = (at_parents > self.given[..., None]).sum(-1)
        return (n_better < top_k) & (self.given.exp() > threshold)

    def on_paths(self, values: Tensor) -> Tensor:
        """Sums of values `[B, N]` over each node's path below the root, `[B, N]`."""
        below_root = self.tree.ancestors & (self.tree.depths > 0)[:, None]
        return torch.where(below_root, values[:, None], 0).sum(-1)

    def longest(self, acceptable: Tensor) -> Tensor:
        """The node where the longest path of acceptable tokens ends, of equally long ones the most probable, `[B]`."""
        tree = self.tree
        accepted = (acceptable & tree.present) | (tree.depths == 0)
        whole = (accepted[:, None] | ~tree.ancestors).all(-1)  # [B, N]
        log_prob = self.on_paths(self.given)
        # A logarithm x of at most 0 becomes x / (1 - x), above -1: depth comes first.
        return torch.where(whole, tree.depths + log_prob / (1 - log_prob), -1).argmax(1)

    def emit(self, end: Tensor, constraint: Constraint[ListState]) -> ChosenTokens:
        """The tokens of the path to a node `[B]`, each at its parent, and the target's choice elsewhere."""
        tree, nodes = self.tree, torch.arange(self.tree.tokens.shape[1], device=end.device)
        on_path = pick(tree.ancestors, end[:, None])[:, 0] & (nodes > 0)
        is_next = (tree.parents[:, None] == nodes[:, None]) & on_path[:, None]  # [B, N, N], at most one for each node
        following = torch.where(is_next, tree.tokens[:, None], 0).sum(-1)
        tokens = torch.where(is_next.any(-1), following, self.own.tokens)
        log_probs = self.log_probs.gather(-1, tokens[..., None])[..., 0]
        return ChosenTokens(tokens, log_probs, constraint.advance(tree.states, tokens))
