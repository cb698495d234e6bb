"""Verification: the token after every node of a tree, and the path that a round keeps."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.decoding.device.compiled import compiled
from padrec.decoding.lists.constraint import Constraint
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.sampling import Choice, masked_log_softmax
from padrec.decoding.lists.tensor_record import pick
from padrec.decoding.lists.token_tree import TokenTree


@dataclass(frozen=True)
class ChosenTokens:
    """The token emitted after every node of a tree; arbitrary where nothing is allowed."""

    tokens: Tensor  # int64 [B, N]
    log_probs: Tensor  # renormalised over the allowed tokens, temperature 1, float32 or float64 as the logits, [B, N]
    states: ListState  # list states after the tokens, [B, N]


@compiled
def choose(
    logits: Tensor, states: ListState, depths: Tensor, choice: Choice, constraint: Constraint[ListState]
) -> ChosenTokens:
    """Choose the target's token after every node, from the node's logits, list state and noise alone.

    All lossless decoders choose by this function; how many nodes share a pass makes no difference.

    Args:
        logits: the target's, `[B, N, V]`.
        states: list states at the nodes, `[B, N]`.
        depths: the nodes' depths, int64 `[B, N]`.
        choice: sampling rule and noise of the round.
        constraint: which tokens are allowed.
    """
    continuations = constraint.continuations(states)
    if continuations is None:
        log_probs = masked_log_softmax(logits, None)
        tokens = index = choice.choose(log_probs, depths)
    else:
        # Far fewer tokens than the vocabulary has.
        log_probs = masked_log_softmax(logits.gather(-1, continuations.tokens), continuations.free)
        index = choice.choose(log_probs, depths, continuations.tokens)
        tokens = continuations.tokens.gather(-1, index[..., None])[..., 0]
    return ChosenTokens(tokens, log_probs.gather(-1, index[..., None])[..., 0], constraint.advance(states, tokens))


class VerificationRule(ABC):
    """Decides which token a round emits after each node of a tree.

    `accept` then walks down from the root as long as the token emitted at a node is one of the node's children. A rule
    may depend on a node's path, which the tree tells: for instance on how often it deviates from the target's choice.

    Attributes:
        lossless: whether the output has the target's own distribution (greedy: is token-identical).
    """

    lossless: bool

    def open(self, batch: int, device: torch.device) -> "VerificationRule":
        """The rule for batches of one size: another object where it keeps state from round to round."""
        return self

    def begin(self) -> None:  # noqa: B027  # few rules have anything to forget
        """Forget the last batch."""

    @abstractmethod
    def emit(self, tree: TokenTree, logits: Tensor, choice: Choice, constraint: Constraint[ListState]) -> ChosenTokens:
        """Choose the token after every node of `tree`; the other arguments are those of `choose`.

        On a GPU it is compiled with the acceptance that follows, and captured: shapes must not depend on values, and
        the host must not read any value.
        """


class ExactVerification(VerificationRule):
    """Emits the target's own choice at every node: lossless for any tree, even one that knows the target's noise.

    The emitted token is a function of the tokens before it and the noise of its position, so the tree decides only
    where a round ends, not what the list holds. If the tree does not depend on the noise, this equals EAGLE-2's scheme
    (try children in order, accept each with probability p, renormalise p after a rejection): both emit token x with
    probability p(x) and descend exactly when x is a child.
    """

    lossless = True

    def emit(self, tree: TokenTree, logits: Tensor, choice: Choice, constraint: Constraint[ListState]) -> ChosenTokens:
        """See `VerificationRule.emit`."""
        return choose(logits, tree.states, tree.depths, choice, constraint)


@dataclass(frozen=True)
class AcceptedPath:
    """The path of the tree that a round keeps."""

    path: Tensor  # kept nodes from the root on, int64 [B, D + 1]; 0 after `count`
    count: Tensor  # kept draft tokens, int64 [B], 0 … D
    emitted: Tensor  # tokens added to the list, int64 [B, D + 1]: `count` draft tokens, the bonus token, then arbitrary


def accept(tree: TokenTree, emitted: Tensor) -> AcceptedPath:
    """Keep the path from the root on which each token is the one emitted at its parent, int64 `[B, N]`."""
    matches = (tree.tokens == emitted.gather(1, tree.parents)) & tree.present
    matches[:, 0] = True
    kept = (matches[:, None, :] | ~tree.ancestors).all(-1)  # [B, N], the whole path to the node matches
    count, last = torch.where(kept, tree.depths, -1).max(-1)  # siblings differ, so the deepest kept node is unique
    on_path = pick(tree.ancestors, last[:, None])[:, 0]  # [B, N]
    # The sum over the only node of each depth, if any: a scatter of integers would not be fused with the rest.
    depths = torch.arange(tree.max_depth + 1, device=on_path.device)[:, None]
    nodes = torch.arange(tree.tokens.shape[1], device=on_path.device)
    path = torch.where(on_path[:, None] & (tree.depths[:, None] == depths), nodes, 0).sum(-1)  # [B, D + 1]
    return AcceptedPath(path=path, count=count, emitted=emitted.gather(1, path))
