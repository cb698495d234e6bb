"""Times of work that is repeated, side by side."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from experiments.study import interval_of

T = TypeVar("T")
_RESAMPLES = 2000
_WARM_UPS = 2


@dataclass(frozen=True)
class Work:
    """Something to time.

    Attributes:
        run: does it once.
        calls: how often it is done for one measurement, so that what is short outlasts the clock's own cost.
        before: brings things into order before each measurement, untimed.
    """

    run: Callable[[], object]
    calls: int = 1
    before: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Timing:
    """A median with its 95 % bootstrap interval, in any unit, and the measurements behind it."""

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, values: Tensor, divisor: Tensor | None = None) -> "Timing":
        """Median of the values `[n]`, or the ratio of two medians that were measured side by side."""
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randint(len(values), (_RESAMPLES, len(values)), generator=generator)
        resampled, median = values[drawn].quantile(0.5, dim=1), values.quantile(0.5)
        if divisor is not None:
            resampled, median = resampled / divisor[drawn].quantile(0.5, dim=1), median / divisor.quantile(0.5)
        low, high = interval_of(resampled)
        return cls(float(median), low, high, len(values))

    def to_dict(self, unit: str) -> dict[str, object]:
        """As reports hold it, the keys with the unit."""
        return {unit: self.median, f"{unit}_ci95": [self.low, self.high]}


def interleaved_seconds(works: Mapping[str, Work], device: torch.device, repeats: int) -> dict[str, Tensor]:
    """Time works in turn, in an order that alternates, so that whatever slows the machine slows all of them.

    Returns:
        Seconds of one call in each repeat, float64 `[repeats]`, by name.
    """
    clock = _cuda_seconds if device.type == "cuda" else _cpu_seconds
    names = list(works)
    for _ in range(_WARM_UPS):
        for name in names:
            clock(works[name])
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats):
        for name in names if repeat % 2 else names[::-1]:
            seconds[name].append(clock(works[name]) / works[name].calls)
    return {name: torch.tensor(found, dtype=torch.float64) for name, found in seconds.items()}


def _cpu_seconds(work: Work) -> float:
    work.before()
    start = time.perf_counter()
    for _ in range(work.calls):
        work.run()
    return time.perf_counter() - start


def _cuda_seconds(work: Work) -> float:
    work.before()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(work.calls):
        work.run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000


def timed(function: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """What a function returns, and its wall-clock seconds, the device synchronised at both ends."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    result = function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result, time.perf_counter() - start
