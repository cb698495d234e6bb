"""Wall-clock time and throughput."""

from typing import Any

import torch
from torch import Tensor

from padrec.catalog import InputError
from padrec.metrics.exact_metric import ExactMetric


class Speed(ExactMetric):
    """Total seconds, tokens and lists, and what they make per second.

    The seconds of all processes are added up, so that a rate is that of one process.

    Args:
        **kwargs: arguments of `torchmetrics.Metric`.

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
        for name, dtype in (
            ("total_seconds", torch.float64),
            ("total_prefill_seconds", torch.float64),
            ("total_tokens", torch.int64),
            ("total_lists", torch.int64),
        ):
            self.add_state(name, torch.zeros((), dtype=dtype), dist_reduce_fx="sum")

    def update(self, seconds: float, prefill_seconds: float, tokens: Tensor, counted: Tensor | None = None) -> None:
        """Add one decoded batch.

        Args:
            seconds: wall-clock time of the batch, prefill included.
            prefill_seconds: the prefill's part of it.
            tokens: tokens of each list, int64 `[B]`.
            counted: bool `[B]`; False for rows that only pad the set. Their tokens and lists are left out; their
                time is part of the batch's and stays, unless no row of the batch counts. By default all rows count.

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
        """The totals and rates by name; seconds and rates float64, tokens and lists int64, all scalars."""
        return {
            "seconds": self.total_seconds,
            "prefill_seconds": self.total_prefill_seconds,
            "tokens": self.total_tokens,
            "lists": self.total_lists,
            "tokens_per_second": self.total_tokens / self.total_seconds,
            "lists_per_second": self.total_lists / self.total_seconds,
        }
