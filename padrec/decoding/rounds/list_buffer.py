"""The lists of a batch while they are written."""

from typing import Any

import torch
from torch import Tensor

from padrec.decoding.device.compiled import compiled
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.request import Request
from padrec.decoding.lists.sampling import Choice
from padrec.decoding.lists.verification import ChosenTokens, choose


class ListBuffer:
    """The lists of a batch while they are written; the same tensors serve every batch.

    Args:
        request: what is generated.
        batch: rows.
        device: where the tensors are.
    """

    def __init__(self, request: Request[Any], batch: int, device: torch.device) -> None:
        self.request = request
        self._stop_tokens = torch.tensor(request.stop_tokens, dtype=torch.long, device=device)
        self.keys = torch.zeros(batch, dtype=torch.long, device=device)
        self.lengths = torch.zeros_like(self.keys)  # [B] tokens written
        self.finished = torch.zeros(batch, dtype=torch.bool, device=device)  # [B]
        # The last column takes writes past the end of a list.
        width = request.n_tokens + 1
        self.tokens = torch.zeros(batch, width, dtype=torch.long, device=device)
        self.log_probs = torch.zeros(batch, width, dtype=torch.float32, device=device)
        self.last = torch.zeros_like(self.keys)  # [B] the token that the target chose but has not read
        self._start = request.constraint.initial(batch, device)  # its tensors may share memory
        self.state = self._start.clone()  # [B] after `last`

    def begin(self, logits: Tensor, keys: Tensor) -> None:
        """Begin new lists.

        Args:
            logits: target logits after the prompts, `[B, V]`.
            keys: a random key for each list, int64 `[B]`.
        """
        # Noise and choice are compiled on their own, so they stay outside `_begin`.
        request, first = self.request, torch.zeros_like(keys)
        choice = request.sampling.choice(keys, first, 0, request.vocabulary_size)
        state = self._start.unsqueeze()
        _begin(keys, choose(logits[:, None], state, first[:, None], choice, request.constraint), self)

    def clear(self, keys: Tensor) -> None:
        """Empty all lists; see `begin`."""
        self.keys.copy_(keys)
        self.lengths.zero_()
        self.finished.zero_()
        self.tokens.fill_(self.request.pad_token)
        self.log_probs.zero_()

    def remaining(self) -> int:
        """The most tokens that any list still lacks; waits for the device."""
        return int((self.request.n_tokens - self.lengths).masked_fill(self.finished, 0).max())

    def choice(self, max_depth: int) -> Choice:
        """What decides the next tokens, for a round that is `max_depth` deep."""
        return self.request.sampling.choice(self.keys, self.lengths, max_depth, self.request.vocabulary_size)

    def extend(self, tokens: Tensor, log_probs: Tensor, states: ListState) -> Tensor:
        """Append one chosen token `[B, 1]` to every list, with the state after it.

        Returns:
            See `append`; last token and state of finished rows may be anything.
        """
        count = self.append(tokens, log_probs, torch.ones_like(self.lengths))
        self.last.copy_(tokens[:, 0])
        self.state.copy_(states.squeeze())
        return count

    def append(self, tokens: Tensor, log_probs: Tensor, count: Tensor) -> Tensor:
        """Append the first `count` of the tokens `[B, M]`, up to the end of each list.

        Returns:
            Tokens written, int64 `[B]`; 0 for finished rows.
        """
        place = torch.arange(tokens.shape[1], device=tokens.device)
        end = self.request.n_tokens
        count = torch.minimum(count, end - self.lengths).masked_fill(self.finished, 0)
        stops = (tokens[..., None] == self._stop_tokens).any(-1)
        stopped = stops.cumsum(1) - stops.long() > 0  # after a stop token
        written = (place < count[:, None]) & ~stopped
        column = torch.where(written, self.lengths[:, None] + place, end)
        self.tokens.scatter_(1, column, tokens)
        self.log_probs.scatter_(1, column, log_probs.float())
        count = written.sum(1)
        self.lengths += count
        self.finished |= (stops & written).any(1) | (self.lengths == end)
        return count

    def written(self) -> tuple[Tensor, Tensor]:
        """Copies of tokens and log-probabilities, `[B, T]`."""
        return self.tokens[:, :-1].clone(), self.log_probs[:, :-1].clone()


@compiled
def _begin(keys: Tensor, chosen: ChosenTokens, lists: ListBuffer) -> None:
    lists.clear(keys)
    lists.extend(chosen.tokens, chosen.log_probs, chosen.states)
