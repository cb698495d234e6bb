"""What the target emits at every node of a tree."""

from dataclasses import dataclass

from torch import Tensor

from padrec.decoding.device.compiled import compiled
from padrec.decoding.lists.constraint import Constraint
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.sampling import Choice, masked_log_softmax


@dataclass(frozen=True)
class ChosenTokens:
    """The token that follows every node of a tree; where nothing is allowed, as after the end of a list, any token.

    Attributes:
        tokens: int64 `[B, N]`.
        log_probs: of those among all that are allowed, at temperature 1, float32 `[B, N]` (float64 for float64 logits).
        states: list states after them, `[B, N]`.
    """

    tokens: Tensor
    log_probs: Tensor
    states: ListState


@compiled
def choose(
    logits: Tensor, states: ListState, depths: Tensor, choice: Choice, constraint: Constraint[ListState]
) -> ChosenTokens:
    """The target's token at every node, a function of the node's logits, list state and noise alone.

    Every lossless decoder chooses by it, and one list is chosen in one way, however many nodes share the pass.

    Args:
        logits: the target's logits, `[B, N, V]`.
        states: list states at the nodes, `[B, N]`.
        depths: depths of the nodes, int64 `[B, N]`.
        choice: what decides the tokens of this round.
        constraint: what lists may continue with.
    """
    log_probs = masked_log_softmax(logits, constraint.allowed(states))
    tokens = choice.choose(log_probs, depths)
    return ChosenTokens(tokens, log_probs.gather(-1, tokens[..., None])[..., 0], constraint.advance(states, tokens))
