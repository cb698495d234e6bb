"""The operations of a round, first part: the target's choice."""

from torch import Tensor

from padrec.decoding.device.compiled import compiled
from padrec.decoding.lists.chosen_tokens import ChosenTokens
from padrec.decoding.lists.constraint import Constraint
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.sampling import Choice, masked_log_softmax


class ListOperations:
    """What a round computes of lists, in plain PyTorch; `TritonRoundOperations` has the same in GPU kernels."""

    def choose(
        self, logits: Tensor, states: ListState, depths: Tensor, choice: Choice, constraint: Constraint[ListState]
    ) -> ChosenTokens:
        """The target's token at every node, a function of the node's logits, list state and noise alone.

        Every lossless decoder chooses by it, and one list is chosen in one way, however many nodes share the pass.

        Args:
            logits: of the target, `[B, N, V]`.
            states: list states at the nodes, `[B, N]`.
            depths: of the nodes, int64 `[B, N]`.
            choice: what decides the tokens of this round.
            constraint: what lists may continue with.
        """
        return _choose(logits, states, depths, choice, constraint)


@compiled
def _choose(
    logits: Tensor, states: ListState, depths: Tensor, choice: Choice, constraint: Constraint[ListState]
) -> ChosenTokens:
    log_probs = masked_log_softmax(logits, constraint.allowed(states))
    tokens = choice.choose(log_probs, depths)
    return ChosenTokens(tokens, log_probs.gather(-1, tokens[..., None])[..., 0], constraint.advance(states, tokens))
