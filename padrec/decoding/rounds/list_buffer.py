"""The lists of a batch while they are written."""

from typing import Any

import torch
from torch import Tensor

from padrec.decoding.device.compiled import compiled
from padrec.decoding.lists.chosen_tokens import ChosenTokens, choose
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.request import Request
from padrec.decoding.lists.sampling import Choice


class ListBuffer:
    """The lists of a batch while they are written, batch after batch in the same tensors.

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
        # One column more than a list has takes what is written after its end.
        width = request.n_tokens + 1
        self.tokens = torch.zeros(batch, width, dtype=torch.long, device=device)
        self.log_probs = torch.zeros(batch, width, dtype=torch.float32, device=device)
        self.last = torch.zeros_like(self.keys)  # [B] the token that the target has chosen but not read
        self._start = request.constraint.initial(batch, device)  # of all lists; its tensors may share memory
        self.state = self._start.clone()  # [B] after `last`

    def begin(self, logits: Tensor, keys: Tensor) -> None:
        """Begin new lists.

        Args:
            logits: target logits after the prompts, `[B, V]`.
            keys: one random key for each list, int64 `[B]`.
        """
        # Noise and choice are made outside of what is compiled, since they are compiled by themselves.
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
        """The most tokens that a list still lacks; waits for the device."""
        return int((self.request.n_tokens - self.lengths).masked_fill(self.finished, 0).max())

    def choice(self, max_depth: int) -> Choice:
        """What decides the tokens of a round that is `max_depth` deep, after what is written."""
        return self.request.sampling.choice(self.keys, self.lengths, max_depth, self.request.vocabulary_size)

    def extend(self, tokens: Tensor, log_probs: Tensor, states: ListState) -> Tensor:
        """Write one chosen token to every list and move on past it; see `ChosenTokens`, all of them `[B, 1]`.

        Returns:
            How many tokens were written, int64 `[B]`; 0 for finished rows, whose last token and state may be anything.
        """
        count = self.append(tokens, log_probs, torch.ones_like(self.lengths))
        self.last.copy_(tokens[:, 0])
        self.state.copy_(states.squeeze())
        return count

    def append(self, tokens: Tensor, log_probs: Tensor, count: Tensor) -> Tensor:
        """Write the first `count` of the tokens `[B, M]`, up to the end of the list.

        Returns:
            How many tokens were written, int64 `[B]`; 0 for finished rows.
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
        """Tokens and their log-probabilities, `[B, T]`, in tensors that the next batch does not change."""
        return self.tokens[:, :-1].clone(), self.log_probs[:, :-1].clone()


@compiled
def _begin(keys: Tensor, chosen: ChosenTokens, lists: ListBuffer) -> None:
    """See `ListBuffer.begin`."""
    lists.clear(keys)
    lists.extend(chosen.tokens, chosen.log_probs, chosen.states)
