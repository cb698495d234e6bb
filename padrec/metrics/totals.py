"""Sums and means of any number."""

from typing import Any

import torch
from torch import Tensor

from padrec.metrics.exact_metric import ExactMetric


class Total(ExactMetric):
    """Sum of all values, float64.

    torchmetrics' `SumMetric` adds up in the precision of the module around it: in bfloat16, which has 8 significant
    bits, a count of ones stops at 256.

    Args:
        **kwargs: arguments of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> metric = Total()
        >>> metric.update(0.5)
        >>> metric.update(torch.tensor([1, 2]))
        >>> metric.compute().item()
        3.5
    """

    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Tensor | float) -> None:
        """Add all elements of `values`, a number or a tensor of any shape."""
        self.total = self.total + _summed(values)

    def compute(self) -> Tensor:
        """The sum, float64 scalar."""
        return self.total


class Mean(ExactMetric):
    """Mean of all values, as a float64 sum and a count; NaN without values.

    Args:
        **kwargs: arguments of `torchmetrics.Metric`.

    Example:
        >>> import torch
        >>> metric = Mean()
        >>> metric.update(torch.tensor([True, False, True]))
        >>> metric.update(torch.tensor([0.0]))
        >>> metric.compute().item()
        0.5
    """

    values_sum: Tensor
    values_count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("values_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("values_count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Count all elements of `values`, a tensor of any shape and type."""
        self.values_sum = self.values_sum + _summed(values)
        self.values_count = self.values_count + values.numel()

    def compute(self) -> Tensor:
        """The mean, float64 scalar."""
        return self.values_sum / self.values_count


def _summed(values: Tensor | float) -> Tensor | float:
    return values.double().sum() if isinstance(values, Tensor) else values
