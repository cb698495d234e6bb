"""One batch after another through the same buffers and the same recorded passes."""

import math
import time
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from padrec.decoding.decoder import ListBuffer, ListRequest, Stopwatch
from padrec.decoding.recommendations import DecodingTrace, Recommendations, RoundStatistics
from padrec.decoding.recording import Recording
from padrec.decoding.runner import Prompts, TargetRunner, roomy

# Prompts are padded to a multiple of this on a GPU, so that few widths have to be recorded.
_WIDTH_STEP = 32


class Rounds(Protocol):
    """How a decoder writes the lists of one batch; all of it is recorded, see `Recording`.

    Attributes:
        lists: the lists of the batch.
        statistics: what the rounds cost.
        most_tokens: the most tokens that a round adds to a list.
    """

    lists: ListBuffer
    statistics: RoundStatistics
    most_tokens: int

    def start(self, prompts: Prompts, keys: Tensor) -> None:
        """Read the prompts and begin new lists, with the requests' random keys, int64 `[B]`."""
        ...

    def round(self) -> None:
        """Continue every list that is not finished."""
        ...


class Sessions:
    """A decoder's sessions: one for each target, request, batch size and capacity that it meets.

    Args:
        rounds: makes the rounds of a session from runner, request, batch size and capacity.
        room: tokens of the cache that a round needs behind prompt and list.
    """

    def __init__(self, rounds: Callable[[TargetRunner, ListRequest, int, int], Rounds], room: int) -> None:
        self._rounds = rounds
        self._room = room
        # The keys hold runner and request alive: the next one cannot be mistaken for them.
        self._sessions: dict[tuple[TargetRunner, ListRequest, int, int], Session] = {}

    def decode(
        self, runner: TargetRunner, prompts: Prompts, request: ListRequest, generator: torch.Generator
    ) -> tuple[Recommendations, DecodingTrace]:
        """Write one list for each prompt; see `Decoder.decode`."""
        device = prompts.tokens.device
        batch, width = prompts.tokens.shape
        capacity = roomy(_recorded_width(width, device) + request.n_tokens + self._room, device)
        key = (runner, request, batch, capacity)
        if key not in self._sessions:
            self._sessions[key] = Session(self._rounds(runner, request, batch, capacity), request, device)
        return self._sessions[key].decode(prompts, generator)


class Session:
    """Decodes batches of one size.

    Args:
        rounds: what is recorded.
        request: what is generated.
        device: where.
    """

    def __init__(self, rounds: Rounds, request: ListRequest, device: torch.device) -> None:
        self._rounds = rounds
        self._request = request
        self._device = device
        self._starts: dict[int, _Start] = {}  # by width of the prompts
        self._round: Recording | None = None

    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[Recommendations, DecodingTrace]:
        """Write one list for each prompt; see `Decoder.decode`."""
        lists, statistics = self._rounds.lists, self._rounds.statistics
        keys = self._request.sampling.keys(len(prompts.tokens), generator, self._device)
        recording_seconds, start = self._recorded(prompts, keys)
        watch = Stopwatch(self._device)
        start.run(prompts, keys)
        prefill_seconds = watch.lap()
        self._finish_lists()
        trace = statistics.trace(prefill_seconds, watch.lap(), lists.lengths, recording_seconds)
        return lists.recommendations(), trace

    def _recorded(self, prompts: Prompts, keys: Tensor) -> tuple[float, "_Start"]:
        """What starts prompts of this width; recorded, and timed, at the first need."""
        width = _recorded_width(prompts.tokens.shape[1], self._device)
        before = time.perf_counter()
        if width not in self._starts:
            self._starts[width] = _Start(self._rounds, prompts, keys, width)
        if self._round is None:
            self._round = Recording(self._rounds.round, self._device)
        return time.perf_counter() - before, self._starts[width]

    def _finish_lists(self) -> None:
        assert self._round is not None
        lists = self._rounds.lists
        remaining = self._request.n_tokens - 1
        while remaining > 0:
            # So many rounds are needed at least: only behind them the device is asked how far it is.
            for _ in range(math.ceil(remaining / self._rounds.most_tokens)):
                self._round()
            remaining = lists.remaining()


def _recorded_width(width: int, device: torch.device) -> int:
    return math.ceil(width / _WIDTH_STEP) * _WIDTH_STEP if device.type == "cuda" else width


class _Start:
    """The start of batches whose prompts have one width."""

    def __init__(self, rounds: Rounds, prompts: Prompts, keys: Tensor, width: int) -> None:
        batch, device = len(prompts.tokens), keys.device
        tokens = torch.zeros(batch, width, dtype=torch.long, device=device)
        self._prompts = Prompts(tokens, tokens.clone(), torch.zeros_like(keys))
        self._keys = torch.zeros_like(keys)
        self._fill(prompts, keys)
        self._recording = Recording(lambda: rounds.start(self._prompts, self._keys), device)

    def run(self, prompts: Prompts, keys: Tensor) -> None:
        """Start a batch."""
        self._fill(prompts, keys)
        self._recording()

    def _fill(self, prompts: Prompts, keys: Tensor) -> None:
        width = prompts.tokens.shape[1]
        self._prompts.tokens[:, :width] = prompts.tokens
        self._prompts.slots[:, :width] = prompts.slots
        # Behind a prompt anything may stand: it is read, but nothing sees it.
        self._prompts.lengths.copy_(prompts.lengths)
        self._keys.copy_(keys)
