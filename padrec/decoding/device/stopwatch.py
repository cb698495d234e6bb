"""Wall-clock time of work on a device."""

import time
from collections.abc import Callable

import torch


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
