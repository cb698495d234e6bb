"""The captured work of batches of one size."""

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
        before, shape = time.perf_counter(), PromptShape.of(prompts)
        start = self._starts.pop(shape, None) or _CapturedStart(self._start, prompts, keys, shape)
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

    def __init__(self, start: _Start, prompts: Prompts, keys: Tensor, shape: PromptShape) -> None:
        tokens = prompts.tokens.new_zeros(shape.batch, shape.width)
        excluded = None if shape.excluded is None else tokens.new_empty(shape.batch, shape.excluded)
        self._prompts = Prompts(tokens, tokens.clone(), torch.zeros_like(keys), shape.packed, excluded)
        self._keys = torch.zeros_like(keys)
        self._load(prompts, keys)  # capturing runs the start
        self._graph = CapturedGraph(lambda: start(self._prompts, self._keys), keys.device)

    def run(self, prompts: Prompts, keys: Tensor) -> None:
        self._load(prompts, keys)
        self._graph()

    def _load(self, prompts: Prompts, keys: Tensor) -> None:
        # What an earlier batch left after the end of a prompt is read, but never attended to.
        width = prompts.tokens.shape[1]
        self._prompts.tokens[:, :width] = prompts.tokens
        self._prompts.slots[:, :width] = prompts.slots
        self._prompts.lengths.copy_(prompts.lengths)
        if self._prompts.excluded is not None and prompts.excluded is not None:
            self._prompts.excluded.fill_(-1)
            self._prompts.excluded[:, : prompts.excluded.shape[1]] = prompts.excluded
        self._keys.copy_(keys)
