"""What the target emits at every node of a tree."""

from dataclasses import dataclass

from torch import Tensor

from padrec.decoding.lists.list_state import ListState


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
