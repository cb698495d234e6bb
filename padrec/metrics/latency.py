"""How long each user waits."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from padrec.catalog import InputError
from padrec.metrics.exact_metric import ExactMetric


class Latency(ExactMetric):
    """The milliseconds that each user waited: those of the batch that the user was part of.

    Args:
        **kwargs: arguments of `torchmetrics.Metric`.

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
            seconds: wall-clock time of the batch, prefill included.
            counted: bool `[B]`; False for rows that only pad the set.

        Raises:
            InputError: a negative time.
        """
        if not seconds >= 0:
            raise InputError(f"a batch took {seconds} s: expected 0 s or more")
        milliseconds = torch.full(counted.shape, 1000 * seconds, dtype=torch.float64, device=self.device)
        self.latencies_ms.append(milliseconds[counted.to(self.device)])

    def compute(self) -> Tensor:
        """The latency of every counted user in milliseconds, rising, float64 `[users]`."""
        # A list on one process, one tensor after the exchange between processes.
        if len(self.latencies_ms) == 0:
            return torch.empty(0, dtype=torch.float64, device=self.device)
        return dim_zero_cat(self.latencies_ms).sort().values


def latency_percentiles(latencies_ms: Tensor, percentiles: Sequence[int] = (50, 95, 99)) -> dict[str, float]:
    """Percentiles of the users' latencies, interpolated linearly.

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
