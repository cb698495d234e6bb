"""Wall-clock time of device work, and names of its phases for profilers."""

import time
from collections.abc import Callable
from enum import StrEnum

import torch
from torch.profiler import record_function


class Stopwatch:
    """Wall-clock seconds between laps; each lap synchronises the device."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._last = device, 0.0
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
        """Mark the current point of the device's work without synchronising.

        The function returned gives the seconds from the last lap to this mark; valid only after the next `lap()`.
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


class Phase(StrEnum):
    """The phases of a round, named for profilers.

    Phases may nest; a profiler counts the inner one's time on its own. The replay of a captured round shows no names.
    """

    TARGET_PASS = "target pass"
    DRAFT_PASSES = "draft passes"
    TREE_BUILDING = "tree building"
    ACCEPTANCE = "acceptance"
    KEEPING = "keeping"

    @property
    def label(self) -> str:
        """The name that profilers show."""
        return f"padrec: {self.value}"

    def named(self) -> record_function:
        """A context whose work belongs to this phase."""
        return record_function(self.label)
