"""The mean over users of a number that each user has."""

from typing import Any

import torch
from torch import Tensor

from padrec.catalog import InputError
from padrec.metrics.exact_metric import ExactMetric


class UserMean(ExactMetric):
    """Mean over users, as a float64 sum and a count; the base of the ranking metrics.

    `compute` returns a float64 scalar, NaN if no user was counted.

    Args:
        metric: name of the metric, the beginning of its states' names. `MetricCollection` merges metrics whose states
            have the same names and, after the first batch, the same values: metrics that can agree on one batch and
            differ on the next (NDCG@10, NDCG@5, recall@10) need names of their own.
        k: length at which lists are cut, at least 1.
        **kwargs: arguments of `torchmetrics.Metric`.

    Raises:
        InputError: `k` is below 1.
    """

    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def __init__(self, metric: str, k: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if k < 1:
            raise InputError(f"{type(self).__name__}: k is {k}, expected at least 1")
        self.k = k
        self._sum_name = f"{metric}_at_{k}_sum"
        self._users_name = f"{metric}_at_{k}_users"
        self.add_state(self._sum_name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state(self._users_name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def add_users(self, values: Tensor, counted: Tensor | None) -> None:
        """Add a batch of users.

        Args:
            values: float64 `[B]`; NaN where the metric is not defined for the user, who is then not counted.
            counted: bool `[B]`; False for rows that only pad the set to a multiple of the processes. By default all
                rows count.
        """
        defined = ~values.isnan()
        kept = defined if counted is None else defined & counted
        setattr(self, self._sum_name, getattr(self, self._sum_name) + values.where(kept, 0.0).sum())
        setattr(self, self._users_name, getattr(self, self._users_name) + kept.sum())

    def compute(self) -> Tensor:
        """The mean over the users counted so far, on all processes."""
        total: Tensor = getattr(self, self._sum_name)
        users: Tensor = getattr(self, self._users_name)
        return total / users
