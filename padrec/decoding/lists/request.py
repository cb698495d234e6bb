"""The protocol of requests: what a decode is asked for."""

from typing import Protocol, Self, TypeVar

from torch import Tensor

from padrec.decoding.lists.constraint import Constraint
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.sampling import Sampling

R_co = TypeVar("R_co", covariant=True)


class Request(Protocol[R_co]):
    """What to generate for every prompt of a batch, and what becomes of the tokens.

    A request is compared by identity: sessions are made for one request.
    """

    @property
    def constraint(self) -> Constraint[ListState]:
        """What may follow."""
        ...

    @property
    def sampling(self) -> Sampling:
        """How tokens are chosen."""
        ...

    @property
    def n_tokens(self) -> int:
        """T, the most tokens to generate."""
        ...

    @property
    def vocabulary_size(self) -> int:
        """V, tokens of the target."""
        ...

    @property
    def n_slot_states(self) -> int:
        """Slots that acceptance is counted by; 1 where tokens have none."""
        ...

    @property
    def pad_token(self) -> int:
        """What fills up texts that end early."""
        ...

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """Each of these ends a text, whose last token it is."""
        ...

    def excluding(self, batch: int) -> Self:
        """The same request for batches of one size whose prompts exclude items; see `Prompts.excluded`.

        Raises:
            InputError: it is no request for lists of a catalog.
        """
        ...

    def result(self, tokens: Tensor, log_probs: Tensor) -> R_co:
        """What the caller gets.

        Args:
            tokens: int64 `[B, T]`, padded after the end.
            log_probs: of them under the target's constrained distribution at temperature 1, float32 `[B, T]`.
        """
        ...
