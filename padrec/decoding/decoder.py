"""What all decoders share: the request, the growing lists, the clock."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from padrec.catalog import Catalog, CatalogTrie, InputError, SemanticIDVocabulary
from padrec.decoding.chosen_tokens import ChosenTokens, choose_tokens
from padrec.decoding.compiled import compiled
from padrec.decoding.constraint import CatalogConstraint, Constraint, FreeDecoding, ListState
from padrec.decoding.recommendations import DecodingTrace, Recommendations
from padrec.decoding.row_copy import RowCopy
from padrec.decoding.runner import Prompts, TargetRunner
from padrec.decoding.sampling import Choice, Sampling


@dataclass(frozen=True, eq=False)
class ListRequest:
    """What to generate for every prompt of a batch; equal to itself alone.

    Attributes:
        catalog: the items.
        vocabulary: their tokens.
        list_length: K, items in a list.
        constraint: what a list may continue with.
        sampling: how tokens are chosen.
    """

    catalog: Catalog
    vocabulary: SemanticIDVocabulary
    list_length: int
    constraint: Constraint[ListState]
    sampling: Sampling = field(default_factory=Sampling)

    @classmethod
    def build(
        cls,
        catalog: Catalog,
        vocabulary: SemanticIDVocabulary,
        list_length: int,
        *,
        constrained: bool = True,
        sampling: Sampling | None = None,
        device: torch.device | str = "cpu",
    ) -> "ListRequest":
        """Make the constraint for a catalog on a device.

        Raises:
            InputError: K is less than 1, or more than the catalog's leaves where lists are constrained.
        """
        if list_length < 1:
            raise InputError(f"list_length {list_length}: expected at least 1 item in a list")
        constraint: Constraint[ListState]
        if constrained:
            trie = CatalogTrie(catalog, vocabulary).to(device)
            constraint = CatalogConstraint(trie, vocabulary, list_length)  # type: ignore[assignment]
        else:
            constraint = FreeDecoding(vocabulary)
        return cls(catalog, vocabulary, list_length, constraint, sampling or Sampling())

    @property
    def n_tokens(self) -> int:
        """T, tokens in a list."""
        return self.vocabulary.list_tokens(self.list_length)


# The search of decoders that write a list token by token, each item behind those before it.
LIST_SEARCH = "list"


class Decoder(Protocol):
    """Writes lists with a target; arms of a comparison are decoders."""

    @property
    def lossless(self) -> bool:
        """Whether its lists are the target's own."""
        ...

    @property
    def search(self) -> str:
        """Names what is searched for: lossless decoders of one search return the same lists, those of two may not."""
        ...

    def max_depth(self, request: ListRequest) -> int:
        """D, the deepest proposal of a round: a trace's counts by depth are so wide; 0 where nothing is proposed."""
        ...

    def prepare(self, runner: TargetRunner, vocabulary: SemanticIDVocabulary) -> None:
        """Load what the decoder needs beside the target, before anything is timed.

        Raises:
            InputError: it cannot be loaded, or belongs to another target or vocabulary.
        """
        ...

    def decode(
        self, runner: TargetRunner, prompts: Prompts, request: ListRequest, generator: torch.Generator
    ) -> tuple[Recommendations, DecodingTrace]:
        """Write one list for each prompt.

        Args:
            runner: the target.
            prompts: what the target reads first, `[B]` rows.
            request: what to generate.
            generator: on the CPU; the only source of randomness.
        """
        ...


class ListBuffer:
    """The lists of a batch while they are written, batch after batch in the same tensors.

    Args:
        request: what is generated.
        batch: rows.
        device: where the tensors are.
    """

    def __init__(self, request: ListRequest, batch: int, device: torch.device) -> None:
        self.request = request
        self.keys = torch.zeros(batch, dtype=torch.long, device=device)
        self.lengths = torch.zeros_like(self.keys)  # [B] tokens written
        self.finished = torch.zeros(batch, dtype=torch.bool, device=device)  # [B]
        # One column more than a list has takes what is written behind its end.
        width = request.n_tokens + 1
        self.tokens = torch.zeros(batch, width, dtype=torch.long, device=device)
        self.log_probs = torch.zeros(batch, width, dtype=torch.float32, device=device)
        self.last = torch.zeros_like(self.keys)  # [B] the token that the target has chosen but not read
        self._start = request.constraint.initial(batch, device)  # of all lists; its tensors may share memory
        self.state = self._start.clone()  # [B] behind `last`

    def begin(self, logits: Tensor, keys: Tensor) -> None:
        """Begin new lists.

        Args:
            logits: target logits behind the prompts, `[B, V]`.
            keys: one random key for each list, int64 `[B]`.
        """
        # Noise and choice are made outside of what is compiled, since they are compiled by themselves.
        request, first = self.request, torch.zeros_like(keys)
        choice = request.sampling.choice(keys, first, 0, request.vocabulary.size)
        state = self._start.unsqueeze()
        _begin(keys, choose_tokens(logits[:, None], state, first[:, None], choice, request.constraint), self)

    def clear(self, keys: Tensor) -> None:
        """Empty all lists; see `begin`."""
        self.keys.copy_(keys)
        self.lengths.zero_()
        self.finished.zero_()
        self.tokens.fill_(self.request.vocabulary.pad_token)
        self.log_probs.zero_()

    def remaining(self) -> int:
        """The most tokens that a list still lacks; waits for the device."""
        return max(self.missing())

    def missing(self) -> list[int]:
        """The tokens that each list still lacks at most, 0 for finished ones; waits for the device."""
        missing: list[int] = (self.request.n_tokens - self.lengths).masked_fill(self.finished, 0).tolist()
        return missing

    def copy_rows(self, source: "ListBuffer", rows: RowCopy) -> None:
        """Take over lists of the same request."""
        for name in ("keys", "lengths", "finished", "tokens", "log_probs", "last"):
            rows(getattr(source, name), getattr(self, name))
        self.state.copy_rows(source.state, rows)

    def choice(self, max_depth: int) -> Choice:
        """What decides the tokens of a round that is `max_depth` deep, behind what is written."""
        return self.request.sampling.choice(self.keys, self.lengths, max_depth, self.request.vocabulary.size)

    def extend(self, tokens: Tensor, log_probs: Tensor, states: ListState) -> Tensor:
        """Write one chosen token to every list and move on behind it; see `ChosenTokens`, all of them `[B, 1]`.

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
        is_eos = tokens == self.request.vocabulary.eos_token
        behind_eos = is_eos.cumsum(1) - is_eos.long() > 0
        written = (place < count[:, None]) & ~behind_eos
        column = torch.where(written, self.lengths[:, None] + place, end)
        self.tokens.scatter_(1, column, tokens)
        self.log_probs.scatter_(1, column, log_probs.float())
        count = written.sum(1)
        self.lengths += count
        self.finished |= (is_eos & written).any(1) | (self.lengths == end)
        return count

    def recommendations(self) -> Recommendations:
        """The lists as items of the catalog, in tensors that the next batch does not change."""
        request = self.request
        tokens, log_probs = self.tokens[:, :-1].clone(), self.log_probs[:, :-1].clone()
        return Recommendations.from_tokens(tokens, log_probs, request.catalog, request.vocabulary, request.list_length)


@compiled
def _begin(keys: Tensor, chosen: ChosenTokens, lists: ListBuffer) -> None:
    """See `ListBuffer.begin`."""
    lists.clear(keys)
    lists.extend(chosen.tokens, chosen.log_probs, chosen.states)


class Stopwatch:
    """Wall-clock seconds between laps, the device synchronised at each."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last = 0.0
        self._begun: torch.cuda.Event | None = None
        self.lap()

    def lap(self) -> float:
        """Seconds since the last lap."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        if self._device.type == "cuda":
            self._begun = _moment(self._device)
        return seconds

    def mark(self) -> Callable[[], float]:
        """Mark where the device's work stands, without waiting for it.

        Returns:
            The seconds from the last lap to this mark; to be asked for behind another lap, when the device has come by.
        """
        if self._begun is None:
            seconds = time.perf_counter() - self._last
            return lambda: seconds
        begun, marked = self._begun, _moment(self._device)
        return lambda: begun.elapsed_time(marked) / 1000


def _moment(device: torch.device) -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event
