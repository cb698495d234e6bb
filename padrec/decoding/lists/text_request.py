"""Free text as a request: any tokenizer, no catalog."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from padrec.catalog import InputError
from padrec.decoding.lists.constraint import Continuations
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.sampling import Sampling


@dataclass(frozen=True)
class GeneratedText:
    """One text for each row.

    Attributes:
        tokens: int64 `[B, T]`, padded after the end.
        log_probs: of each token under the target's distribution at temperature 1, float32 `[B, T]`.
        lengths: tokens of each text, the stop token included, int64 `[B]`.
    """

    tokens: Tensor
    log_probs: Tensor
    lengths: Tensor


class FreeText:
    """The constraint of texts: every token may follow, and no token has a slot."""

    longest_run = 0

    def initial(self, batch: int, device: torch.device) -> ListState:
        """States `[batch]` of texts that have not begun."""
        return ListState(slot=torch.zeros(batch, dtype=torch.long, device=device))

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
        return ListState(slot=torch.zeros_like(token))


@dataclass(frozen=True, eq=False)
class TextRequest:
    """A text for every prompt of a batch, until a stop token or at most `n_tokens` tokens; see `Request`.

    Attributes:
        vocabulary_size: V, tokens of the target.
        n_tokens: T, the most tokens to generate, at least 1.
        stop_tokens: each of these ends a text.
        pad_token: fills up texts that end early.
        sampling: how tokens are chosen.

    Raises:
        InputError: fewer than one token, or a stop or padding token outside the vocabulary.
    """

    vocabulary_size: int
    n_tokens: int
    stop_tokens: tuple[int, ...] = ()
    pad_token: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    constraint: FreeText = field(default_factory=FreeText)

    n_slot_states = 1

    def __post_init__(self) -> None:
        outside = [token for token in (*self.stop_tokens, self.pad_token) if not 0 <= token < self.vocabulary_size]
        if self.n_tokens < 1 or outside:
            raise InputError(
                f"n_tokens {self.n_tokens}, stop and padding tokens {outside} outside the vocabulary: expected at "
                f"least 1 token, and tokens of 0 … {self.vocabulary_size - 1}"
            )

    def excluding(self, batch: int) -> "TextRequest":
        """Refuse to exclude items; see `Request.excluding`."""
        raise InputError("items to exclude from a text: expected a request for lists of a catalog")

    def result(self, tokens: Tensor, log_probs: Tensor) -> GeneratedText:
        """The texts; see `Request.result`."""
        stops = torch.tensor(self.stop_tokens, dtype=torch.long, device=tokens.device)
        stopped = torch.isin(tokens, stops).cumsum(1) - torch.isin(tokens, stops).long() > 0
        return GeneratedText(tokens, log_probs, (~stopped).sum(1))
