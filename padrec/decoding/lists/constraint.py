"""What a list may continue with: the protocol of constraints, and decoding without one."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding.lists.list_state import ListState, S


@dataclass(frozen=True)
class Continuations:
    """A short list of tokens that contains all allowed ones.

    Attributes:
        tokens: int64 `[*, C]`; the allowed ones are distinct.
        free: whether each is allowed, bool `[*, C]`.
    """

    tokens: Tensor
    free: Tensor

    def mask(self, vocabulary_size: int) -> Tensor:
        """Whether each token of the vocabulary is allowed, bool `[*, V]`."""
        shape = (*self.tokens.shape[:-1], vocabulary_size + 1)
        counts = torch.zeros(shape, dtype=torch.int32, device=self.tokens.device)
        # Tokens that are not allowed go to an extra last column. Integers: the compiler cannot scatter booleans.
        columns = torch.where(self.free, self.tokens, vocabulary_size)
        return counts.scatter(-1, columns, self.free.int())[..., :vocabulary_size] > 0


class Constraint(Protocol[S]):
    """Decides which tokens are allowed next; all methods take states of any shape `[*]`."""

    @property
    def longest_run(self) -> int:
        """The most forced tokens that one round adds after a node, fewer than an item has; 0 if none is ever forced.

        The rest of a longer run waits for the next round.
        """

    def initial(self, batch: int, device: torch.device) -> S:
        """States `[batch]` of empty lists."""

    def continuations(self, state: S) -> Continuations | None:
        """The allowed tokens; None if every token is allowed."""

    def allowed(self, state: S) -> Tensor | None:
        """Whether each token of the vocabulary is allowed, bool `[*, V]`; None if every token is."""

    def forced(self, state: S) -> Tensor:
        """The only allowed token, int64 `[*]`, or -1.

        A constraint need not find every forced token, but no other token may be allowed beside the one it returns.
        """

    def advance(self, state: S, token: Tensor) -> S:
        """The states after one more token each, int64 `[*]`."""


class Unconstrained:
    """Allows every token and tracks no slots; see `Constraint`."""

    longest_run = 0

    def initial(self, batch: int, device: torch.device) -> ListState:
        """States `[batch]` of empty lists."""
        return ListState(slot=torch.zeros(batch, dtype=torch.long, device=device))

    def continuations(self, state: ListState) -> Continuations | None:
        """Always None."""
        return None

    def allowed(self, state: ListState) -> Tensor | None:
        """Always None."""
        return None

    def forced(self, state: ListState) -> Tensor:
        """Always -1."""
        return torch.full_like(state.slot, -1)

    def advance(self, state: ListState, token: Tensor) -> ListState:
        """The states after one more token each."""
        return ListState(slot=torch.zeros_like(token))


class FreeDecoding(Unconstrained):
    """Allows every token and tracks slots.

    Args:
        vocabulary: the target's tokens.
    """

    def __init__(self, vocabulary: SemanticIDVocabulary) -> None:
        self.vocabulary = vocabulary

    def initial(self, batch: int, device: torch.device) -> ListState:
        """States `[batch]` of empty lists."""
        return ListState(slot=torch.full((batch,), self.vocabulary.other_slot, device=device))

    def advance(self, state: ListState, token: Tensor) -> ListState:
        """The states after one more token each."""
        return ListState(slot=self.vocabulary.next_slot(state.slot, token))
