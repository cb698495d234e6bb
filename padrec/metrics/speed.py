"""Throughput, how long each user waits, and how much faster an arm is than the reference."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from padrec.catalog import InputError
from padrec.metrics.exact_metric import ExactMetric

# Draws at a time: 32 MiB of indices for any number of units.
_DRAWS_AT_ONCE = 2**22


class Speed(ExactMetric):
    """Total seconds, tokens and lists, and the rates per second.

    Seconds are summed over processes, so a rate is that of one process.

    Example:
        >>> import torch
        >>> metric = Speed()
        >>> metric.update(seconds=0.5, prefill_seconds=0.25, tokens=torch.tensor([40, 38]))
        >>> {name: value.item() for name, value in metric.compute().items()}
        {'seconds': 0.5, 'prefill_seconds': 0.25, 'tokens': 78, 'lists': 2,
         'tokens_per_second': 156.0, 'lists_per_second': 4.0}
    """

    total_seconds: Tensor
    total_prefill_seconds: Tensor
    total_tokens: Tensor
    total_lists: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sum("total_seconds", dtype=torch.float64)
        self.add_sum("total_prefill_seconds", dtype=torch.float64)
        self.add_sum("total_tokens")
        self.add_sum("total_lists")

    def update(self, seconds: float, prefill_seconds: float, tokens: Tensor, counted: Tensor | None = None) -> None:
        """Add one decoded batch.

        Args:
            seconds: wall-clock time of the batch including the prefill.
            prefill_seconds: time of the prefill.
            tokens: tokens of each list, int64 `[B]`.
            counted: bool `[B]`, False for padding rows; None counts all rows. Tokens and lists of padding rows are left
                out; the batch's time counts unless all its rows are padding.
        """
        if not 0 <= prefill_seconds <= seconds:
            raise InputError(f"prefill of {prefill_seconds} s in a batch of {seconds} s: expected 0 ≤ prefill ≤ batch")
        counted = torch.ones_like(tokens, dtype=torch.bool) if counted is None else counted
        timed = counted.any().to(torch.float64)  # a float times a bool would be float32
        self.total_seconds = self.total_seconds + seconds * timed
        self.total_prefill_seconds = self.total_prefill_seconds + prefill_seconds * timed
        self.total_tokens = self.total_tokens + (tokens * counted).sum()
        self.total_lists = self.total_lists + counted.sum()

    def compute(self) -> dict[str, Tensor]:
        """Totals and rates by name, scalars: seconds and rates float64, tokens and lists int64."""
        return {
            "seconds": self.total_seconds,
            "prefill_seconds": self.total_prefill_seconds,
            "tokens": self.total_tokens,
            "lists": self.total_lists,
            "tokens_per_second": self.total_tokens / self.total_seconds,
            "lists_per_second": self.total_lists / self.total_seconds,
        }


class Latency(ExactMetric):
    """Milliseconds that each user waited, which is the time of the user's whole batch.

    Example:
        >>> import torch
        >>> metric = Latency()
        >>> metric.update(seconds=0.5, counted=torch.tensor([True, True]))
        >>> metric.update(seconds=0.25, counted=torch.tensor([True, False]))
        >>> metric.compute()
        tensor([250., 500., 500.], dtype=torch.float64)
        >>> latency_percentiles(metric.compute())
        {'p50': 500.0, 'p95': 500.0, 'p99': 500.0}
    """

    higher_is_better = False
    plot_lower_bound = 0.0
    latencies_ms: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(result_shape=(-1,), **kwargs)
        self.add_state("latencies_ms", [], dist_reduce_fx="cat")

    def update(self, seconds: float, counted: Tensor) -> None:
        """Add a batch that took that long, with the prefill; `counted`, bool `[B]`, is False for padding rows."""
        if not seconds >= 0:
            raise InputError(f"a batch took {seconds} s: expected 0 s or more")
        n_users = int(counted.sum())
        self.latencies_ms.append(torch.full((n_users,), 1000 * seconds, dtype=torch.float64, device=self.device))

    def compute(self) -> Tensor:
        """The latency of every counted user in milliseconds, ascending, float64 `[users]`."""
        # A list on one process, a single tensor after the exchange between processes.
        if len(self.latencies_ms) == 0:
            return torch.empty(0, dtype=torch.float64, device=self.device)
        return dim_zero_cat(self.latencies_ms).sort().values


def latency_percentiles(latencies_ms: Tensor, percentiles: Sequence[int] = (50, 95, 99)) -> dict[str, float]:
    """Percentiles (0 to 100) of latencies, `[users]` in milliseconds, by name: `p50`, `p95`, …; NaN without users.

    They are interpolated linearly.
    """
    if latencies_ms.numel() == 0:
        return {f"p{percentile}": float("nan") for percentile in percentiles}
    shares = torch.tensor(percentiles, dtype=torch.float64, device=latencies_ms.device) / 100
    values: list[float] = torch.quantile(latencies_ms.double(), shares).tolist()
    return {f"p{percentile}": value for percentile, value in zip(percentiles, values, strict=True)}


class Speedup(ExactMetric):
    """Total reference seconds ÷ total arm seconds over the same units, with a 95 % interval, and the median ratio.

    A unit is what is timed and resampled as a whole: a user, or a batch of users. Times of a unit that is added several
    times are summed. The result is the same on any number of processes. See `paired_bootstrap_speedup`. A few units
    that another program slowed down decide the totals, but hardly the median of the units' own ratios.

    Args:
        n_resamples: number of bootstrap resamples.
        seed: seed of the resampling.

    Example:
        >>> metric = Speedup()
        >>> metric.update(unit=0, reference_seconds=3.0, arm_seconds=1.0)
        >>> metric.update(unit=1, reference_seconds=6.0, arm_seconds=2.0)
        >>> {name: value.item() for name, value in metric.compute().items()}
        {'speedup': 3.0, 'low': 3.0, 'high': 3.0, 'median': 3.0}
    """

    higher_is_better = True
    plot_lower_bound = 0.0
    units: list[Tensor]
    reference_seconds: list[Tensor]
    arm_seconds: list[Tensor]

    def __init__(self, n_resamples: int = 2000, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_resamples = n_resamples
        self.seed = seed
        for name in ("units", "reference_seconds", "arm_seconds"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, unit: int, reference_seconds: float, arm_seconds: float, counted: Tensor | None = None) -> None:
        """Add one unit.

        Args:
            unit: number of the unit, the same on every process, below 2^53.
            reference_seconds: wall-clock time of the reference arm including the prefill.
            arm_seconds: wall-clock time of this arm including the prefill.
            counted: bool `[B]`, False for padding rows; None counts all rows. A unit of padding rows alone is left out.
        """
        if counted is not None and not bool(counted.any()):
            return
        # The number is float64 too: a process without units sends its empty lists as `self.dtype`.
        row = torch.tensor([unit, reference_seconds, arm_seconds], dtype=torch.float64)
        _check_seconds(row[1:])
        row = row.to(self.device)
        self.units.append(row[:1])
        self.reference_seconds.append(row[1:2])
        self.arm_seconds.append(row[2:])

    def compute(self) -> dict[str, Tensor]:
        """`speedup`, the ends `low` and `high` of its 95 % interval, and `median`, the median of the units' own ratios.

        All are float64 scalars; NaN without units.
        """
        speedup, low, high, median = (float("nan"),) * 4
        if len(self.units):
            # Sorted by number, so that resamples are the same on any number of processes.
            units, place = torch.unique(dim_zero_cat(self.units).cpu(), return_inverse=True)
            reference, arm = (
                torch.zeros(len(units), dtype=torch.float64).index_add_(0, place, dim_zero_cat(seconds).cpu())
                for seconds in (self.reference_seconds, self.arm_seconds)
            )
            speedup, (low, high) = paired_bootstrap_speedup(reference, arm, self.n_resamples, self.seed)
            median = (reference / arm).quantile(0.5).item()
        values = {"speedup": speedup, "low": low, "high": high, "median": median}
        return {name: torch.tensor(value, dtype=torch.float64, device=self.device) for name, value in values.items()}


def paired_bootstrap_speedup(
    reference_seconds: Tensor, arm_seconds: Tensor, n_resamples: int = 2000, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """Total reference seconds ÷ total arm seconds, with a 95 % percentile interval of a paired bootstrap.

    A resample draws n units with replacement and takes both times of each, so a unit that is slow for both arms does
    not widen the interval (Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13). The interval of
    a single unit has zero width.

    Args:
        reference_seconds: time of the reference arm for each unit, `[n]`, positive and finite.
        arm_seconds: time of the other arm for the same units, `[n]`, positive and finite.
        n_resamples: number of resamples, at least 1.
        seed: seed of the resampling.

    Returns:
        The speedup, and the ends of its interval.

    Example:
        >>> import torch
        >>> paired_bootstrap_speedup(torch.tensor([4.0, 6.0, 5.0]), torch.tensor([2.0, 2.0, 1.0]))
        (3.0, (2.0, 5.0))
    """
    if reference_seconds.ndim != 1 or reference_seconds.shape != arm_seconds.shape or len(reference_seconds) == 0:
        found = f"{list(reference_seconds.shape)} in the reference arm and {list(arm_seconds.shape)} in the other"
        raise InputError(f"times of shape {found}: expected the same units, at least one")
    if n_resamples < 1:
        raise InputError(f"{n_resamples} bootstrap resamples: expected at least 1")
    seconds = torch.stack([reference_seconds, arm_seconds]).double().cpu()  # [2, n]
    _check_seconds(seconds)
    n_units = seconds.shape[1]
    generator = torch.Generator().manual_seed(seed)
    at_once = max(1, _DRAWS_AT_ONCE // n_units)
    ratios = []
    for done in range(0, n_resamples, at_once):
        drawn = torch.randint(n_units, (min(at_once, n_resamples - done), n_units), generator=generator)
        reference, arm = (arm_or_reference[drawn].sum(dim=1) for arm_or_reference in seconds)
        ratios.append(reference / arm)
    low, high = torch.quantile(torch.cat(ratios), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    reference_total, arm_total = seconds.sum(dim=1).tolist()
    return reference_total / arm_total, (low, high)


def _check_seconds(seconds: Tensor) -> None:
    wrong = seconds[~(seconds.isfinite() & (seconds > 0))]
    if len(wrong):
        raise InputError(f"{len(wrong)} times such as {wrong[0].item()} s: expected positive, finite times")
