"""The base class of all metrics in this package, and the sum and mean of arbitrary numbers."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torchmetrics import Metric
from torchmetrics.utilities.plot import _AX_TYPE, _PLOT_OUT_TYPE


class ExactMetric(Metric):
    """A torchmetrics metric whose states keep their precision and whose result keeps its shape.

    torchmetrics 1.9 silently changes numbers in three places:

    - `module.to(torch.bfloat16)`, which Lightning's `bf16-true` precision calls, also converts float64 sums.
    - A process without batches sends an empty float32 tensor where the others send float64.
    - `compute` squeezes a one-element tensor to a scalar: `result_shape`, as in `Tensor.reshape`, restores its shape.
    """

    is_differentiable = False
    full_state_update = False

    def __init__(self, result_shape: tuple[int, ...] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.result_shape = result_shape

    def add_sum(self, name: str, *shape: int, dtype: torch.dtype = torch.int64) -> None:
        """Add a state of zeros that is summed over processes."""
        self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")

    @property
    def dtype(self) -> torch.dtype:
        """The type of real-valued states: always float64."""
        return torch.float64

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: _AX_TYPE | None = None) -> _PLOT_OUT_TYPE:
        """Plot the given results on the given axes; by default the current result in a new figure."""
        return self._plot(val, ax)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Module:
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, exclude_state)

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        squeezing = super()._wrap_compute(compute)

        @wraps(compute)
        def keep_shape() -> Any:  # noqa: ANN401
            result = squeezing()
            return result.reshape(self.result_shape) if isinstance(result, Tensor) else result

        return keep_shape


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
