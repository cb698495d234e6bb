"""The protocol of constraints: what a list may continue with."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from padrec.decoding.lists.list_state import S


@dataclass(frozen=True)
class Continuations:
    """All tokens that may follow, among others that may not; far fewer than the vocabulary has.

    Attributes:
        tokens: int64 `[*, C]`; those that are free differ from one another.
        free: whether each may follow, bool `[*, C]`.
    """

    tokens: Tensor
    free: Tensor

    def mask(self, vocabulary_size: int) -> Tensor:
        """Whether each token of the vocabulary may follow, bool `[*, V]`."""
        shape = (*self.tokens.shape[:-1], vocabulary_size + 1)
        counts = torch.zeros(shape, dtype=torch.int32, device=self.tokens.device)
        # What is not free is written to one column too many, which is cut off again. Not with truth values, for which
        # the compiler has no kernel of its own.
        places = torch.where(self.free, self.tokens, vocabulary_size)
        return counts.scatter(-1, places, self.free.int())[..., :vocabulary_size] > 0


class Constraint(Protocol[S]):
    """Decides which tokens may follow; one object serves every decoder and, in trees, every node."""

    @property
    def longest_run(self) -> int:
        """Forced tokens that a round has room for behind a node, fewer than an item has; 0 where none is ever forced.

        What a longer run has besides takes another round.
        """
        ...

    def initial(self, batch: int, device: torch.device) -> S:
        """States `[batch]` of lists that have not begun."""
        ...

    def continuations(self, state: S) -> Continuations | None:
        """Tokens that may follow, `[*]`; None where all may."""
        ...

    def allowed(self, state: S) -> Tensor | None:
        """The same for every token of the vocabulary, bool `[*, V]`; None where all may follow."""
        ...

    def forced(self, state: S) -> Tensor:
        """The token that must follow, int64 `[*]`; -1 where several may or none.

        A constraint need not find every forced token, but no other token may follow than the one it names.
        """
        ...

    def advance(self, state: S, token: Tensor) -> S:
        """States after one more token each (int64, the states' shape)."""
        ...
