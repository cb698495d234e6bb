"""The protocol of requests: what to decode."""

from typing import Protocol, TypeVar

from torch import Tensor

from padrec.decoding.lists.constraint import Constraint
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.sampling import Sampling

R_co = TypeVar("R_co", covariant=True)


class Request(Protocol[R_co]):
    """What to generate for every prompt of a batch. Compared by identity: a session serves one request."""

    @property
    def constraint(self) -> Constraint[ListState]:
        """Which tokens are allowed."""
        ...

    @property
    def sampling(self) -> Sampling:
        """The sampling rule."""
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
        """Slots by which acceptance is counted; 1 if tokens have none."""
        ...

    @property
    def pad_token(self) -> int:
        """Fills rows that end early."""
        ...

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """Tokens that end a row, as its last token."""
        ...

    def result(self, tokens: Tensor, log_probs: Tensor) -> R_co:
        """Make the result from the generated tokens.

        Args:
            tokens: int64 `[B, T]`, padded after the end.
            log_probs: the tokens' under the target's constrained distribution at temperature 1, float32 `[B, T]`.
        """
        ...
