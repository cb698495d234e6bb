"""The recorded passes of batches of one size."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from padrec.decoding.device.captured_graph import CapturedGraph
from padrec.decoding.layers.prompts import Prompts, PromptShape


class CapturedLoop:
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
        self._starts: dict[PromptShape, _Start] = {}
        self._next: _Start
        self._round: CapturedGraph | None = None

    def record(self, prompts: Prompts, keys: Tensor) -> float:
        """Record what is needed for a batch and is not recorded yet; returns the seconds it took."""
        before = time.perf_counter()
        shape = PromptShape.of(prompts)
        if shape not in self._starts:
            self._starts[shape] = _Start(self._start_function, prompts, keys, shape)
        self._next = self._starts[shape]
        if self._round is None:
            self._round = CapturedGraph(self._round_function, self._device)
        return time.perf_counter() - before

    def start(self, prompts: Prompts, keys: Tensor) -> None:
        """Start the batch for which `record` was called last."""
        self._next.run(prompts, keys)

    def round(self) -> None:
        """Run a round of the batch that was started last."""
        assert self._round is not None
        self._round()


class _Start:
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
        excluded = None if shape.excluded is None else tokens.new_empty(shape.batch, shape.excluded)
        self._prompts = Prompts(tokens, tokens.clone(), torch.zeros_like(keys), shape.packed, excluded)
        self._keys = torch.zeros_like(keys)
        self._fill(prompts, keys)
        self._recording = CapturedGraph(lambda: begin(self._prompts, self._keys), device)

    def run(self, prompts: Prompts, keys: Tensor) -> None:
        """Start a batch."""
        self._fill(prompts, keys)
        self._recording()

    def _fill(self, prompts: Prompts, keys: Tensor) -> None:
        width = prompts.tokens.shape[1]
        self._prompts.tokens[:, :width] = prompts.tokens
        self._prompts.slots[:, :width] = prompts.slots
        # After a prompt anything may stand: it is read, but nothing sees it.
        self._prompts.lengths.copy_(prompts.lengths)
        if self._prompts.excluded is not None and prompts.excluded is not None:
            self._prompts.excluded.fill_(-1)
            self._prompts.excluded[:, : prompts.excluded.shape[1]] = prompts.excluded
        self._keys.copy_(keys)
