"""The protocol of verification rules: what a round emits, given a tree and the target's distributions at its nodes."""

from abc import ABC, abstractmethod

from torch import Tensor

from padrec.decoding.lists.chosen_tokens import ChosenTokens, choose
from padrec.decoding.lists.constraint import Constraint
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.sampling import Choice
from padrec.decoding.lists.token_tree import TokenTree


class VerificationRule(ABC):
    """Says which token a round emits after each node of a tree.

    The round then walks down from the root: it emits the token that the rule names at a node and, where one of the
    node's children carries this token, goes on from there. A node's path is known from the tree, so a rule may depend
    on it: on tokens accepted against the target's choice so far, or on the longest acceptable path below.

    Attributes:
        lossless: whether what is emitted has the target's own distribution, token-identical where decoding is greedy.
    """

    lossless: bool

    @abstractmethod
    def emit(self, tree: TokenTree, logits: Tensor, choice: Choice, constraint: Constraint[ListState]) -> ChosenTokens:
        """The token after every node, its log-probability under the target, and the list states after it.

        On a GPU this is captured: shapes must not depend on values, and no value may be asked for on the host.

        Args:
            tree: the proposals.
            logits: of the target at every node, `[B, N, V]`.
            choice: what decides the target's own tokens of this round.
            constraint: what lists may continue with.
        """


class ExactVerification(VerificationRule):
    """Emits the target's own choice at every node: lossless for any tree, also for one that knows the target's noise.

    What is emitted at a node is a function of the tokens before it and of the noise of its position, so the list is the
    same function of prompt and noise whatever the tree; the tree only decides where a round ends. For a tree that does
    not depend on the draw this is the scheme of EAGLE-2 (children tried in order, accepted with probability p, p
    renormalised without them after a rejection) in one step: both emit token x with probability p(x) and descend
    exactly when x is a child.
    """

    lossless = True

    def emit(self, tree: TokenTree, logits: Tensor, choice: Choice, constraint: Constraint[ListState]) -> ChosenTokens:
        """The target's choice; see `VerificationRule.emit`."""
        return choose(logits, tree.states, tree.depths, choice, constraint)
