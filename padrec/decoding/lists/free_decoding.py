"""Decoding without a constraint."""

import torch
from torch import Tensor

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding.lists.constraint import Continuations
from padrec.decoding.lists.list_state import ListState


class FreeDecoding:
    """No constraint: every token may follow, only slots are tracked.

    Args:
        vocabulary: the target's tokens.
    """

    longest_run = 0

    def __init__(self, vocabulary: SemanticIDVocabulary) -> None:
        self.vocabulary = vocabulary

    def initial(self, batch: int, device: torch.device) -> ListState:
        """States `[batch]` of lists that have not begun."""
        return ListState(slot=torch.full((batch,), self.vocabulary.other_slot, device=device))

    def continuations(self, state: ListState) -> Continuations | None:
        """Always None: every token may follow."""
        return None

    def allowed(self, state: ListState) -> Tensor | None:
        """Always None: every token may follow."""
        return None

    def forced(self, state: ListState) -> Tensor:
        """Always -1: no token must follow."""
        return torch.full_like(state.slot, -1)

    def advance(self, state: ListState, token: Tensor) -> ListState:
        """States after one more token each."""
        return ListState(slot=self.vocabulary.next_slot(state.slot, token))
