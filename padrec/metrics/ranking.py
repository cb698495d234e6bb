"""NDCG and recall of recommended lists."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from padrec.catalog import InputError
from padrec.metrics.user_mean import UserMean


class NDCG(UserMean):
    """Normalised discounted cumulative gain of the first k recommendations, the mean over users.

    The gain of a hit is 1, its discount `1 / log2(rank + 1)`, the ideal that of `min(k, relevant items)` hits at the
    top (Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002). See `ndcg` for repeated
    recommendations and for users without relevant items, who are not counted.

    Args:
        k: length at which lists are cut, at least 1.
        **kwargs: arguments of `torchmetrics.Metric`.

    Raises:
        InputError: `k` is below 1.

    Example:
        >>> import torch
        >>> metric = NDCG(k=2)
        >>> metric.update(recommended=torch.tensor([[7, 3, 5], [1, 2, 3]]), relevant=torch.tensor([[7, -1], [2, 9]]))
        >>> round(metric.compute().item(), 4)
        0.6934
    """

    def __init__(self, k: int, **kwargs: Any) -> None:
        super().__init__("ndcg", k, **kwargs)

    def update(self, recommended: Tensor, relevant: Tensor, counted: Tensor | None = None) -> None:
        """Add a batch of users.

        Args:
            recommended: int64 `[B, K]`, best first; negative where the recommendation is no item.
            relevant: int64 `[B, R]`, padded with -1.
            counted: bool `[B]`; False for rows that only pad the set. By default all rows count.

        Raises:
            InputError: shapes other than these.
        """
        self.add_users(ndcg(recommended, relevant, self.k), counted)


class Recall(UserMean):
    """Hits among the first k recommendations ÷ relevant items, the mean over users.

    See `recall` for repeated recommendations and for users without relevant items, who are not counted.

    Args:
        k: length at which lists are cut, at least 1.
        **kwargs: arguments of `torchmetrics.Metric`.

    Raises:
        InputError: `k` is below 1.

    Example:
        >>> import torch
        >>> metric = Recall(k=2)
        >>> metric.update(recommended=torch.tensor([[7, 3, 5], [1, 2, 3]]), relevant=torch.tensor([[7, -1], [2, 9]]))
        >>> metric.compute().item()
        0.75
    """

    def __init__(self, k: int, **kwargs: Any) -> None:
        super().__init__("recall", k, **kwargs)

    def update(self, recommended: Tensor, relevant: Tensor, counted: Tensor | None = None) -> None:
        """Add a batch of users.

        Args:
            recommended: int64 `[B, K]`, best first; negative where the recommendation is no item.
            relevant: int64 `[B, R]`, padded with -1.
            counted: bool `[B]`; False for rows that only pad the set. By default all rows count.

        Raises:
            InputError: shapes other than these.
        """
        self.add_users(recall(recommended, relevant, self.k), counted)


def ndcg(recommended: Tensor, relevant: Tensor, k: int) -> Tensor:
    """NDCG@k of each user.

    A list is judged as it is: a recommendation that is no item, or repeats an earlier one, keeps its rank and is no
    hit. A list shorter than k has no hits at the missing ranks. An item given twice in `relevant` is one item.

    Args:
        recommended: int64 `[B, K]`, best first; negative where the recommendation is no item.
        relevant: int64 `[B, R]`, padded with -1.
        k: length at which lists are cut, at least 1.

    Returns:
        float64 `[B]` in `[0, 1]`; NaN for a user without relevant items.

    Raises:
        InputError: shapes other than these.

    Example:
        >>> import torch
        >>> ndcg(torch.tensor([[4, 8], [8, 4], [8, 9]]), torch.tensor([[4], [4], [-1]]), k=2)
        tensor([1.0000, 0.6309,    nan], dtype=torch.float64)
    """
    relevant = distinct(relevant)
    found = first_matches(recommended, relevant).any(dim=2)[:, :k]  # [B, min(k, K)]
    discounts = rank_discounts(k, found.device)
    gained = (found * discounts[: found.shape[1]]).sum(dim=1)
    ideal = gain_of_first(discounts)[(relevant >= 0).sum(dim=1).clamp(max=k)]
    return gained / ideal


def recall(recommended: Tensor, relevant: Tensor, k: int) -> Tensor:
    """Recall@k of each user: hits among the first k recommendations ÷ relevant items.

    Repeated recommendations, recommendations that are no item, short lists and repeated relevant items are treated
    as in `ndcg`.

    Args:
        recommended: int64 `[B, K]`, best first; negative where the recommendation is no item.
        relevant: int64 `[B, R]`, padded with -1.
        k: length at which lists are cut, at least 1.

    Returns:
        float64 `[B]` in `[0, 1]`; NaN for a user without relevant items.

    Raises:
        InputError: shapes other than these.

    Example:
        >>> import torch
        >>> recall(torch.tensor([[4, 8], [8, 8], [8, 9]]), torch.tensor([[4, 8], [8, 4], [-1, -1]]), k=2)
        tensor([1.0000, 0.5000,    nan], dtype=torch.float64)
    """
    relevant = distinct(relevant)
    hits = first_matches(recommended, relevant).any(dim=2)[:, :k].sum(dim=1)
    return hits.double() / (relevant >= 0).sum(dim=1)


def distinct(indices: Tensor) -> Tensor:
    """Each row's different values, in rising order, with -1 in place of repetitions.

    Args:
        indices: int64 `[B, R]`, padded with -1.

    Returns:
        int64 `[B, R]`, padding in any place.

    Raises:
        InputError: not two dimensions.
    """
    if indices.ndim != 2:
        raise InputError(
            f"relevant items have the shape {list(indices.shape)}, expected [users, items], padded with -1"
        )
    ordered = indices.sort(dim=1).values
    repeated = torch.zeros_like(ordered, dtype=torch.bool)
    repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return ordered.masked_fill(repeated, -1)


def first_matches(recommended: Tensor, relevant: Tensor) -> Tensor:
    """Where a list names a relevant index for the first time.

    Args:
        recommended: int64 `[B, K]`.
        relevant: int64 `[B, R]`; negative values match nothing.

    Returns:
        bool `[B, K, R]`, at most one True along K.

    Raises:
        InputError: not two dimensions, or not the same number of users.
    """
    if recommended.ndim != 2 or len(recommended) != len(relevant):
        raise InputError(
            f"recommended has the shape {list(recommended.shape)}, expected [users, list length] for the "
            f"{len(relevant)} users of the relevant items"
        )
    matches = (recommended[:, :, None] == relevant[:, None, :]) & (relevant >= 0)[:, None, :]
    return matches & (matches.cumsum(dim=1) == 1)


def rank_discounts(k: int, device: torch.device) -> Tensor:
    """The discounts `1 / log2(rank + 1)` of ranks 1 … k, float64 `[k]`."""
    return 1 / torch.arange(2, k + 2, dtype=torch.float64, device=device).log2()


def gain_of_first(discounts: Tensor) -> Tensor:
    """The gain of hits at the first 0, 1, …, k ranks, `[k + 1]`, from the ranks' discounts, `[k]`."""
    return pad(discounts.cumsum(dim=0), (1, 0))
