"""Requests for free text: any tokenizer, no catalog."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from padrec.catalog import InputError
from padrec.decoding.lists.constraint import Unconstrained
from padrec.decoding.lists.sampling import Sampling


@dataclass(frozen=True)
class GeneratedText:
    """One text for each row.

    Attributes:
        tokens: int64 `[B, T]`, padded after the end.
        log_probs: the tokens' under the target's distribution at temperature 1, float32 `[B, T]`.
        lengths: tokens of each text, including the stop token, int64 `[B]`.
    """

    tokens: Tensor
    log_probs: Tensor
    lengths: Tensor


@dataclass(frozen=True, eq=False)
class TextRequest:
    """Asks for a text for every prompt, up to a stop token or `n_tokens` tokens; see `Request`.

    Attributes:
        vocabulary_size: V, tokens of the target.
        n_tokens: T, the most tokens to generate, at least 1.
        stop_tokens: tokens that end a text.
        pad_token: fills texts that end early.
        sampling: the sampling rule.

    Raises:
        InputError: `n_tokens` is below 1, or a stop or padding token is outside the vocabulary.
    """

    vocabulary_size: int
    n_tokens: int
    stop_tokens: tuple[int, ...] = ()
    pad_token: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    constraint: Unconstrained = field(default_factory=Unconstrained)

    n_slot_states = 1

    def __post_init__(self) -> None:
        outside = [token for token in (*self.stop_tokens, self.pad_token) if not 0 <= token < self.vocabulary_size]
        if self.n_tokens < 1 or outside:
            raise InputError(
                f"n_tokens {self.n_tokens}, stop and padding tokens {outside} outside the vocabulary: expected at "
                f"least 1 token, and tokens of 0 … {self.vocabulary_size - 1}"
            )

    def result(self, tokens: Tensor, log_probs: Tensor) -> GeneratedText:
        """Count the tokens of each text; see `Request.result`."""
        stops = torch.tensor(self.stop_tokens, dtype=torch.long, device=tokens.device)
        stopped = torch.isin(tokens, stops).cumsum(1) - torch.isin(tokens, stops).long() > 0
        return GeneratedText(tokens, log_probs, (~stopped).sum(1))
