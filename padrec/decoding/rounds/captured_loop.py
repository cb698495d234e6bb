"""The captured work of batches of one size."""

import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from padrec.decoding.device.captured_graph import CapturedGraph
from padrec.decoding.device.stopwatch import Stopwatch
from padrec.decoding.layers.prompt_shape import PromptShape
from padrec.decoding.layers.prompts import Prompts

_Start = Callable[[Prompts, Tensor], None]

# A service of 40 users with up to 20 items of history, each of five tokens, meets 16.
_MOST_STARTS = 64

# Parts of a tensor begin at multiples of this many elements, as tensors of their own would.
_ALIGNED = 64


class CapturedLoop:
    """Batches of one size: a captured start for each prompt shape, then captured rounds of one or several kinds.

    `start` reads a batch's prompts, with its random keys, int64 `[B]`.
    """

    def __init__(self, start: _Start, rounds: Sequence[Callable[[], None]], device: torch.device) -> None:
        self._start, self._rounds, self._device = start, rounds, device
        self._starts: dict[PromptShape, _CapturedStart] = {}
        self._captured_rounds: list[CapturedGraph] = []

    def run(self, prompts: Prompts, keys: Tensor, finish: Callable[[], None]) -> tuple[float, float, float]:
        """Run the start of a batch, then `finish`, which calls `round` as often as needed.

        Returns the seconds of the start, of the rest, and of capturing what had not been captured yet.
        """
        before, shape = time.perf_counter(), PromptShape.of(prompts, self._device)
        start = self._starts.pop(shape, None) or _CapturedStart(self._start, prompts, keys, shape, self._device)
        self._starts[shape] = start  # the last one used comes last
        if len(self._starts) > _MOST_STARTS:
            del self._starts[next(iter(self._starts))]
        if not self._captured_rounds:
            self._captured_rounds = [CapturedGraph(round_, self._device) for round_ in self._rounds]
        capture_seconds = time.perf_counter() - before
        watch = Stopwatch(self._device)
        start.run(prompts, keys)
        started = watch.mark()
        finish()
        seconds, start_seconds = watch.lap(), started()
        return start_seconds, seconds - start_seconds, capture_seconds

    def round(self, kind: int = 0) -> None:
        """Run one round of the current batch."""
        self._captured_rounds[kind]()


class _CapturedStart:
    """The start of batches of one prompt shape, which are copied to the tensors that it was captured on."""

    def __init__(self, start: _Start, prompts: Prompts, keys: Tensor, shape: PromptShape, device: torch.device) -> None:
        self._given, self._batch = _Batch(shape, prompts.tokens.device, device), _Batch(shape, device, device)
        self._load(prompts, keys)  # capturing runs the start
        self._graph = CapturedGraph(lambda: start(self._batch.prompts, self._batch.keys), device)

    def run(self, prompts: Prompts, keys: Tensor) -> None:
        self._load(prompts, keys)
        self._graph()

    def _load(self, prompts: Prompts, keys: Tensor) -> None:
        self._given.fill(prompts, keys)
        # The host fills it again only after it has waited for this batch.
        self._batch.values.copy_(self._given.values, non_blocking=True)


class _Batch:
    """A batch of one shape on a device, for use on another one: its tensors are parts of one, which a copy moves."""

    def __init__(self, shape: PromptShape, place: torch.device, used_on: torch.device) -> None:
        table, leaves, row = (shape.batch, shape.width), (shape.batch, shape.excluded or 0), (shape.batch,)
        shapes = table, table, leaves, row, row
        rooms = [math.ceil(math.prod(sizes) / _ALIGNED) * _ALIGNED for sizes in shapes]
        pinned = place.type == "cpu" and used_on.type == "cuda"
        self.values = torch.zeros(sum(rooms), dtype=torch.long, device=place, pin_memory=pinned)
        tokens, slots, excluded, lengths, self.keys = (
            part[: math.prod(sizes)].view(sizes) for part, sizes in zip(self.values.split(rooms), shapes, strict=True)
        )
        self.prompts = Prompts(tokens, slots, lengths, shape.packed, None if shape.excluded is None else excluded)

    def fill(self, prompts: Prompts, keys: Tensor) -> None:
        # What an earlier batch left after the end of a prompt is read, but never attended to.
        width = prompts.tokens.shape[1]
        self.prompts.tokens[:, :width] = prompts.tokens
        self.prompts.slots[:, :width] = prompts.slots
        self.prompts.lengths.copy_(prompts.lengths)
        if self.prompts.excluded is not None and prompts.excluded is not None:
            self.prompts.excluded.fill_(-1)
            self.prompts.excluded[:, : prompts.excluded.shape[1]] = prompts.excluded
        self.keys.copy_(keys)
