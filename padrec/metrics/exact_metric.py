"""What every metric of this room has in common beyond torchmetrics."""

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

    torchmetrics 1.9 leaves three gaps that would change numbers without a sign:

    - `module.to(torch.bfloat16)`, which Lightning's `bf16-true` precision calls, converts float64 sums as well.
    - A process that has seen no batch sends an empty float32 tensor where the others send float64.
    - `compute` squeezes a tensor of one element to a scalar, so that a vector's shape depends on its size.

    Args:
        result_shape: shape of the tensor that `compute` returns; -1 as in `Tensor.reshape`. Ignored where `compute`
            returns something else.
        **kwargs: arguments of `torchmetrics.Metric`.
    """

    is_differentiable = False
    full_state_update = False

    def __init__(self, result_shape: tuple[int, ...] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.result_shape = result_shape

    @property
    def dtype(self) -> torch.dtype:
        """The type of the states that hold real numbers: float64, whatever the module around the metric is."""
        return torch.float64

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: _AX_TYPE | None = None) -> _PLOT_OUT_TYPE:
        """Plot one or several results.

        Args:
            val: what `compute` or `forward` returned, once or several times; by default `compute` is called.
            ax: where to plot; by default a new figure.

        Returns:
            Figure and axes.
        """
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
