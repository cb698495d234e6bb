"""Batches of one shape, one after another through the same buffers and the same recorded passes."""

import math
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from padrec.decoding.device.stopwatch import Stopwatch
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.lists.decoding_trace import DecodingTrace, RoundStatistics
from padrec.decoding.lists.request import Request
from padrec.decoding.rounds.captured_loop import CapturedLoop
from padrec.decoding.rounds.list_buffer import ListBuffer

R = TypeVar("R")


class Rounds(Protocol):
    """How the lists of one batch are written; `start` and `round` are recorded, see `CapturedGraph`.

    Attributes:
        lists: the lists of the batch.
        statistics: what the rounds cost.
        most_tokens: the most tokens that a round adds to a list.
        on_host: whether `look_up` has to be called before every round.
    """

    lists: ListBuffer
    statistics: RoundStatistics
    most_tokens: int
    on_host: bool

    def start(self, prompts: Prompts, keys: Tensor) -> None:
        """Read the prompts and begin new lists, with the requests' random keys, int64 `[B]`."""
        ...

    def look_up(self, prompts: Prompts) -> None:
        """Do what the next round needs done on the host; waits for the device."""
        ...

    def round(self) -> None:
        """Continue every list that is not finished."""
        ...


class ShapeSession(Generic[R]):
    """Decodes batches of one shape.

    Args:
        rounds: what is recorded.
        request: what is generated.
        device: where.
    """

    def __init__(self, rounds: Rounds, request: Request[R], device: torch.device) -> None:
        self._rounds, self._request, self._device = rounds, request, device
        self._loop = CapturedLoop(rounds.start, rounds.round, device)

    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[R, DecodingTrace]:
        """Generate for each prompt; see `DecodingSession.decode`."""
        lists, statistics = self._rounds.lists, self._rounds.statistics
        keys = self._request.sampling.keys(len(prompts.tokens), generator, self._device)
        recording_seconds = self._loop.record(prompts, keys)
        watch = Stopwatch(self._device)
        self._loop.start(prompts, keys)
        prefilled = watch.mark()
        self._finish(prompts)
        seconds, prefill_seconds = watch.lap(), prefilled()
        trace = statistics.trace(prefill_seconds, seconds - prefill_seconds, lists.lengths, recording_seconds)
        return self._request.result(*lists.written()), trace

    def _finish(self, prompts: Prompts) -> None:
        remaining = self._request.n_tokens - 1
        while remaining > 0:
            if self._rounds.on_host:
                self._rounds.look_up(prompts)
                self._loop.round()
            else:
                # At least this many rounds remain: run them before synchronising.
                for _ in range(math.ceil(remaining / self._rounds.most_tokens)):
                    self._loop.round()
            remaining = self._rounds.lists.remaining()
