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
    """The lists of a batch while they are written; the same tensors serve every batch."""

    def __init__(self, request: Request[Any], batch: int, device: torch.device) -> None:
        self.request = request
        self._stop_tokens = torch.tensor(request.stop_tokens, dtype=torch.long, device=device)
        self.keys = torch.zeros(batch, dtype=torch.long, device=device)
        self.lengths = torch.zeros_like(self.keys)  # [B] tokens written
        self.finished = torch.zeros(batch, dtype=torch.bool, device=device)  # [B]
        self.tokens = torch.zeros(batch, request.n_tokens, dtype=torch.long, device=device)
        self.log_probs = torch.zeros(batch, request.n_tokens, dtype=torch.float32, device=device)
        self.drafted = torch.zeros_like(self.tokens, dtype=torch.bool)  # [B, T] kept proposals
        self.last = torch.zeros_like(self.keys)  # [B] the token that the target chose but has not read
        self.missing = torch.zeros((), dtype=torch.long, device=device)  # the most tokens that any list still lacks
        self._start = request.constraint.initial(batch, device)  # its tensors may share memory
        self.state = self._start.clone()  # [B] after `last`

    def begin(self, logits: Tensor, keys: Tensor) -> None:
        """Begin new lists from the target's logits after the prompts, `[B, V]`, and random keys, int64 `[B]`."""
        request, first = self.request, torch.zeros_like(keys)
        choice = request.sampling.choice(keys, first, 0, request.vocabulary_size)
        _begin(logits, keys, choice, self._start.unsqueeze(), self)

    def clear(self, keys: Tensor) -> None:
        """Empty all lists; see `begin`."""
        self.keys.copy_(keys)
        self.lengths.zero_()
        self.finished.zero_()
        self.tokens.fill_(self.request.pad_token)
        self.log_probs.zero_()
        self.drafted.zero_()

    def choice(self, max_depth: int) -> Choice:
        """What decides the next tokens, for a round that is `max_depth` deep."""
        return self.request.sampling.choice(self.keys, self.lengths, max_depth, self.request.vocabulary_size)

    def extend(self, chosen: ChosenTokens) -> Tensor:
        """Append one chosen token `[B, 1]` to every list, with the state after it, both arbitrary for finished rows."""
        count = self.append(chosen.tokens, chosen.log_probs, torch.ones_like(self.lengths))
        self.last.copy_(chosen.tokens[:, 0])
        self.state.copy_(chosen.states.squeeze())
        return count

    def append(self, tokens: Tensor, log_probs: Tensor, count: Tensor) -> Tensor:
        """Append the first `count` of the tokens `[B, M]`, up to the end of each list.

        The last of `count` is the target's own, the others are proposals. Returns how many were written, int64 `[B]`,
        0 for finished rows.
        """
        place = torch.arange(tokens.shape[1], device=tokens.device)
        end, proposals = self.request.n_tokens, count - 1
        count = torch.minimum(count, end - self.lengths).masked_fill(self.finished, 0)
        stops = (tokens[..., None] == self._stop_tokens).any(-1)
        stopped = stops.cumsum(1) - stops.long() > 0  # after a stop token
        written = (place < count[:, None]) & ~stopped
        count = written.sum(1)
        # Every column asks for its token: the compiler fuses this, but not a scatter of integers.
        source = torch.arange(end, device=tokens.device) - self.lengths[:, None]  # [B, T]
        is_new, source = (source >= 0) & (source < count[:, None]), source.clamp(0, tokens.shape[1] - 1)
        self.tokens.copy_(torch.where(is_new, tokens.gather(1, source), self.tokens))
        self.log_probs.copy_(torch.where(is_new, log_probs.float().gather(1, source), self.log_probs))
        self.drafted.copy_(torch.where(is_new, source < proposals[:, None], self.drafted))
        self.lengths += count
        self.finished |= (stops & written).any(1) | (self.lengths == end)
        self.missing.copy_((end - self.lengths).masked_fill(self.finished, 0).max())
        return count


@compiled
def _begin(logits: Tensor, keys: Tensor, choice: Choice, state: ListState, lists: ListBuffer) -> None:
    lists.clear(keys)
    depths = torch.zeros_like(keys)[:, None]
    lists.extend(choose(logits[:, None], state, depths, choice, lists.request.constraint))
