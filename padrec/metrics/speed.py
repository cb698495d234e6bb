"""Throughput, and how long each user waits."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from padrec.catalog import InputError
from padrec.metrics.exact_metric import ExactMetric


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

        Raises:
            InputError: a negative time, or a prefill longer than the whole.
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
        """Add one decoded batch.

        Args:
            seconds: wall-clock time of the batch including the prefill.
            counted: bool `[B]`, False for padding rows.

        Raises:
            InputError: a negative time.
        """
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
    """Percentiles of latencies, interpolated linearly.

    Args:
        latencies_ms: milliseconds of each user, `[users]`.
        percentiles: each from 0 to 100.

    Returns:
        Milliseconds by name: `p50`, `p95`, …; NaN without users.
    """
    if latencies_ms.numel() == 0:
        return {f"p{percentile}": float("nan") for percentile in percentiles}
    shares = torch.tensor(percentiles, dtype=torch.float64, device=latencies_ms.device) / 100
    values: list[float] = torch.quantile(latencies_ms.double(), shares).tolist()
    return {f"p{percentile}": value for percentile, value in zip(percentiles, values, strict=True)}
