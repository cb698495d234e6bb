"""One batch after another through the same buffers and the same recorded passes."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from padrec.decoding.device.recording import Recording
from padrec.decoding.device.stopwatch import Stopwatch
from padrec.decoding.layers.runner import Prompts, roomy
from padrec.decoding.lists.list_request import ListRequest
from padrec.decoding.lists.recommendations import DecodingTrace, Recommendations, RoundStatistics
from padrec.decoding.rounds.list_buffer import ListBuffer

# Prompts are padded to a multiple of this on a GPU, so that few widths have to be recorded.
_WIDTH_STEP = 32
# Packed prompts to a multiple of this, for the same reason. A pass of fewer costs hardly less: it reads all weights.
_PACKED_STEP = 256
# More tokens are rounded up by at most this share of them, on every device.
_PACKED_SHARE = 16


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
        self._recordings = Recordings(rounds.start, rounds.round, device)

    def decode(self, prompts: Prompts, generator: torch.Generator) -> tuple[Recommendations, DecodingTrace]:
        """Write one list for each prompt; see `Decoder.decode`."""
        lists, statistics = self._rounds.lists, self._rounds.statistics
        keys = self._request.sampling.keys(len(prompts.tokens), generator, self._device)
        recording_seconds = self._recordings.record(prompts, keys)
        watch = Stopwatch(self._device)
        self._recordings.start(prompts, keys)
        prefilled = watch.mark()
        self._finish_lists()
        seconds, prefill_seconds = watch.lap(), prefilled()
        trace = statistics.trace(prefill_seconds, seconds - prefill_seconds, lists.lengths, recording_seconds)
        return lists.recommendations(), trace

    def _finish_lists(self) -> None:
        lists = self._rounds.lists
        remaining = self._request.n_tokens - 1
        while remaining > 0:
            # So many rounds are needed at least: only behind them the device is asked how far it is.
            for _ in range(math.ceil(remaining / self._rounds.most_tokens)):
                self._recordings.round()
            remaining = lists.remaining()


class Recordings:
    """What is recorded for batches of one size: a start for each shape of prompts, and one round.

    Args:
        start: begins a batch, see `Rounds.start`.
        round_: continues it, see `Rounds.round`.
        device: where.
    """

    def __init__(
        self, start: Callable[[Prompts, Tensor], None], round_: Callable[[], None], device: torch.device
    ) -> None:
        self._start_function = start
        self._round_function = round_
        self._device = device
        self._starts: dict[PromptShape, Start] = {}
        self._next: Start
        self._round: Recording | None = None

    def record(self, prompts: Prompts, keys: Tensor) -> float:
        """Record what is needed for a batch and is not recorded yet; returns the seconds it took."""
        before = time.perf_counter()
        shape = PromptShape.of(prompts)
        if shape not in self._starts:
            self._starts[shape] = Start(self._start_function, prompts, keys, shape)
        self._next = self._starts[shape]
        if self._round is None:
            self._round = Recording(self._round_function, self._device)
        return time.perf_counter() - before

    def start(self, prompts: Prompts, keys: Tensor) -> None:
        """Start the batch for which `record` was called last."""
        self._next.run(prompts, keys)

    def round(self) -> None:
        """Run a round of the batch that was started last."""
        assert self._round is not None
        self._round()


def room_for(prompts: Prompts, behind: int) -> int:
    """Capacity of the cache, in tokens, for prompts as they are recorded and so many tokens behind them."""
    device = prompts.tokens.device
    return roomy(recorded_width(prompts.tokens.shape[1], device) + behind, device)


def recorded_width(width: int, device: torch.device) -> int:
    """The width to which prompts are padded on a device, in tokens."""
    return math.ceil(width / _WIDTH_STEP) * _WIDTH_STEP if device.type == "cuda" else width


def packed_size(n_tokens: int, batch: int, width: int, device: torch.device) -> int | None:
    """The size to which prompts are packed on a device, in tokens; None where they are read as they are padded.

    Args:
        n_tokens: of all prompts together.
        batch: their number.
        width: to which they are padded.
        device: where.
    """
    # A power of two, a sixteenth of the tokens at most.
    step = 1 << max(0, (n_tokens // _PACKED_SHARE).bit_length() - 1)
    if device.type == "cuda":
        step = max(_PACKED_STEP, step)
    size = math.ceil(n_tokens / step) * step
    return size if size < batch * width else None


@dataclass(frozen=True)
class PromptShape:
    """The shape in which the prompts of a batch are recorded.

    Attributes:
        batch: their number.
        width: to which they are padded, in tokens.
        packed: see `Prompts`.
    """

    batch: int
    width: int
    packed: int | None

    @classmethod
    def of(cls, prompts: Prompts, n_tokens: int | None = None) -> "PromptShape":
        """The shape of prompts that have so many tokens together; where None, the device is asked if it matters."""
        (batch, width), device = prompts.tokens.shape, prompts.tokens.device
        width = recorded_width(width, device)
        if batch == 1:
            return cls(batch, width, None)
        if n_tokens is None:
            n_tokens = int(prompts.lengths.sum())
        return cls(batch, width, packed_size(n_tokens, batch, width, device))


class Start:
    """The start of batches whose prompts have one shape.

    Args:
        begin: what is recorded: begins lists for prompts and keys that stay in their tensors.
        prompts: of the first batch, which is not begun yet.
        keys: its random keys, int64 `[B]`.
        shape: of the prompts.
    """

    def __init__(
        self, begin: Callable[[Prompts, Tensor], None], prompts: Prompts, keys: Tensor, shape: PromptShape
    ) -> None:
        device = keys.device
        tokens = torch.zeros(shape.batch, shape.width, dtype=torch.long, device=device)
        self._prompts = Prompts(tokens, tokens.clone(), torch.zeros_like(keys), shape.packed)
        self._keys = torch.zeros_like(keys)
        self._fill(prompts, keys)
        self._recording = Recording(lambda: begin(self._prompts, self._keys), device)

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
