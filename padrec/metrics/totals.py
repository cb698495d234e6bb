"""Sums and means of arbitrary numbers."""

from typing import Any

import torch
from torch import Tensor

from padrec.metrics.exact_metric import ExactMetric


class Total(ExactMetric):
    """Sum of all values in float64.

    torchmetrics' `SumMetric` sums in the precision of the surrounding module: in bfloat16, with 8 significant bits, a
    count of ones stops at 256.
    """

    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sum("total", dtype=torch.float64)

    def update(self, values: Tensor | float) -> None:
        """Add a number, or all elements of a tensor."""
        self.total = self.total + (values.double().sum() if isinstance(values, Tensor) else values)

    def compute(self) -> Tensor:
        """The sum, float64 scalar."""
        return self.total


class Mean(ExactMetric):
    """Mean of all values, from a float64 sum and a count; NaN without values."""

    values_sum: Tensor
    values_count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sum("values_sum", dtype=torch.float64)
        self.add_sum("values_count")

    def update(self, values: Tensor) -> None:
        """Add all elements of a tensor of any shape and type."""
        self.values_sum = self.values_sum + values.double().sum()
        self.values_count = self.values_count + values.numel()

    def compute(self) -> Tensor:
        """The mean, float64 scalar."""
        return self.values_sum / self.values_count
