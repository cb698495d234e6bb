"""NDCG and recall of recommended lists, also by item where a semantic ID represents all items that share it."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from padrec.catalog import InputError
from padrec.metrics.exact_metric import ExactMetric


def ndcg(recommended: Tensor, relevant: Tensor, k: int) -> Tensor:
    """NDCG@k of each user.

    A recommendation that is no item or repeats an earlier one keeps its rank and is no hit. Missing ranks of a list
    shorter than k are no hits. Repetitions in `relevant` are ignored.

    Args:
        recommended: int64 `[B, K]`, best first; negative where a recommendation is no item.
        relevant: int64 `[B, R]`, padded with -1.
        k: lists are cut after k recommendations, at least 1.

    Returns:
        float64 `[B]` in `[0, 1]`; NaN for a user without relevant items.

    Raises:
        InputError: other shapes, or no indices.

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

    Arguments, result, errors and the treatment of repetitions are those of `ndcg`.

    Example:
        >>> import torch
        >>> recall(torch.tensor([[4, 8], [8, 8], [8, 9]]), torch.tensor([[4, 8], [8, 4], [-1, -1]]), k=2)
        tensor([1.0000, 0.5000,    nan], dtype=torch.float64)
    """
    relevant = distinct(relevant)
    hits = first_matches(recommended, relevant).any(dim=2)[:, :k].sum(dim=1)
    return hits.double() / (relevant >= 0).sum(dim=1)


def item_ndcg(recommended: Tensor, relevant_items: Tensor, leaf_of_item: Tensor, leaf_sizes: Tensor, k: int) -> Tensor:
    """NDCG@k by item of each user: the exact expectation over a random order of the items in each leaf.

    Each leaf of the list is replaced by its items, and the list of items is cut at k. Items of one leaf are tied: each
    is equally likely at each rank that the leaf's items occupy (McSherry and Najork, "Computing information retrieval
    performance measures efficiently in the presence of tied scores", 2008). A repeated leaf occupies ranks but has no
    hits; a recommendation that does not exist occupies one rank. Result and errors are those of `ndcg`.

    Args:
        recommended: leaves, int64 `[B, K]`, best first; negative where a generated item does not exist.
        relevant_items: items, int64 `[B, R]`, padded with -1.
        leaf_of_item: int64 `[n_items]`.
        leaf_sizes: items of each leaf, int64 `[n_leaves]`.
        k: lists of items are cut after k items, at least 1.
    """
    ties = _tied_ranks(recommended, relevant_items, leaf_of_item, leaf_sizes, k)
    gain = gain_of_first(rank_discounts(k, recommended.device))  # [k + 1]
    gained = (ties.relevant_share * (gain[ties.end] - gain[ties.start])).sum(dim=1)
    return gained / gain[ties.n_relevant.clamp(max=k)]


def item_recall(
    recommended: Tensor, relevant_items: Tensor, leaf_of_item: Tensor, leaf_sizes: Tensor, k: int
) -> Tensor:
    """Recall@k by item of each user, with the arguments, result, errors and ties of `item_ndcg`."""
    ties = _tied_ranks(recommended, relevant_items, leaf_of_item, leaf_sizes, k)
    return (ties.relevant_share * (ties.end - ties.start)).sum(dim=1) / ties.n_relevant


class UserMean(ExactMetric):
    """Mean over users, from a float64 sum and a count; the base of the ranking metrics.

    Args:
        k: lists are cut after k recommendations, at least 1.
    """

    higher_is_better = True
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    def __init__(self, k: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if k < 1:
            raise InputError(f"{type(self).__name__}: k is {k}, expected at least 1")
        self.k = k
        # State names differ by metric and k: `MetricCollection` merges metrics whose states agree in name and, after
        # the first batch, in value.
        names = (f"{type(self).__name__}_at_{k}_{state}" for state in ("sum", "squares", "users"))
        self._sum_name, self._squares_name, self._users_name = names
        self.add_sum(self._sum_name, dtype=torch.float64)
        self.add_sum(self._squares_name, dtype=torch.float64)
        self.add_sum(self._users_name)

    def add_users(self, values: Tensor, counted: Tensor | None) -> None:
        """Add values of users, float64 `[B]`, NaN where undefined; `counted`, bool `[B]`, is False for padding rows."""
        defined = ~values.isnan()
        kept = defined if counted is None else defined & counted
        values = values.where(kept, 0.0)
        setattr(self, self._sum_name, getattr(self, self._sum_name) + values.sum())
        setattr(self, self._squares_name, getattr(self, self._squares_name) + values.square().sum())
        setattr(self, self._users_name, getattr(self, self._users_name) + kept.sum())

    def compute(self) -> Tensor:
        """The mean over all counted users, float64 scalar; NaN without users."""
        total: Tensor = getattr(self, self._sum_name)
        users: Tensor = getattr(self, self._users_name)
        return total / users

    def interval(self) -> tuple[float, float]:
        """The mean's 95 % interval in [0, 1], by the normal approximation; NaN without users.

        Call it on every process: it is that of the users of all of them.
        """
        with self.sync_context():
            total, squares, users = (
                getattr(self, name) for name in (self._sum_name, self._squares_name, self._users_name)
            )
            mean = total / users
            half = 1.96 * ((squares / users - mean.square()).clamp(min=0) / users).sqrt()
        low, high = (mean + torch.stack([-half, half])).clamp(0, 1).tolist()
        return low, high


class NDCG(UserMean):
    """Normalised discounted cumulative gain of the first k recommendations, averaged over users.

    A hit has gain 1 and discount `1 / log2(rank + 1)`; the ideal list has `min(k, relevant items)` hits at the top
    (Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002). See `ndcg` for repeated
    recommendations. Users without relevant items are not counted.

    Example:
        >>> import torch
        >>> metric = NDCG(k=2)
        >>> metric.update(recommended=torch.tensor([[7, 3, 5], [1, 2, 3]]), relevant=torch.tensor([[7, -1], [2, 9]]))
        >>> round(metric.compute().item(), 4)
        0.6934
    """

    def update(self, recommended: Tensor, relevant: Tensor, counted: Tensor | None = None) -> None:
        """Add a batch of users, see `ndcg`; `counted`, bool `[B]`, is False for padding rows."""
        self.add_users(ndcg(recommended, relevant, self.k), counted)


class Recall(UserMean):
    """Hits among the first k recommendations ÷ relevant items, averaged over users.

    See `ndcg` for repeated recommendations. Users without relevant items are not counted.

    Example:
        >>> import torch
        >>> metric = Recall(k=2)
        >>> metric.update(recommended=torch.tensor([[7, 3, 5], [1, 2, 3]]), relevant=torch.tensor([[7, -1], [2, 9]]))
        >>> metric.compute().item()
        0.75
    """

    def update(self, recommended: Tensor, relevant: Tensor, counted: Tensor | None = None) -> None:
        """Add a batch of users, see `recall`; `counted`, bool `[B]`, is False for padding rows."""
        self.add_users(recall(recommended, relevant, self.k), counted)


class _LeafMetric(UserMean):
    _of_users: "staticmethod[[Tensor, Tensor, Tensor, Tensor, int], Tensor]"

    def update(
        self,
        recommended: Tensor,
        relevant_items: Tensor,
        leaf_of_item: Tensor,
        leaf_sizes: Tensor,
        counted: Tensor | None = None,
    ) -> None:
        """Add a batch of users, see `item_ndcg`; `counted`, bool `[B]`, is False for padding rows."""
        values = self._of_users(recommended, relevant_items, leaf_of_item, leaf_sizes, self.k)
        self.add_users(values, counted)


class ItemNDCG(_LeafMetric):
    """NDCG@k of the items that a list of leaves represents, ties split, averaged over users.

    Lists of items are cut after k, see `item_ndcg`. Users without relevant items are not counted.

    Example:
        >>> import torch
        >>> leaf_of_item = torch.tensor([0, 1, 1, 2])
        >>> metric = ItemNDCG(k=2)
        >>> metric.update(torch.tensor([[1, 0]]), torch.tensor([[2]]), leaf_of_item, torch.bincount(leaf_of_item))
        >>> round(metric.compute().item(), 4)  # item 2 is first or second, each in half of the orders
        0.8155
    """

    _of_users = staticmethod(item_ndcg)


class ItemRecall(_LeafMetric):
    """Recall@k of the items that a list of leaves represents, ties split, averaged over users.

    Lists of items are cut after k, see `item_ndcg`. Users without relevant items are not counted.

    Example:
        >>> import torch
        >>> leaf_of_item = torch.tensor([0, 1, 1, 2])
        >>> metric = ItemRecall(k=1)
        >>> metric.update(torch.tensor([[1, 0]]), torch.tensor([[2]]), leaf_of_item, torch.bincount(leaf_of_item))
        >>> metric.compute().item()
        0.5
    """

    _of_users = staticmethod(item_recall)


class _TiedRanks(NamedTuple):
    """The ranks `start + 1 … end`, cut at k, that the items of each leaf occupy."""

    start: Tensor  # int64 [B, K]
    end: Tensor  # int64 [B, K]
    relevant_share: Tensor  # float64 [B, K], relevant items ÷ items of the leaf
    n_relevant: Tensor  # int64 [B]


def _tied_ranks(
    recommended: Tensor, relevant_items: Tensor, leaf_of_item: Tensor, leaf_sizes: Tensor, k: int
) -> _TiedRanks:
    relevant_items = distinct(relevant_items)
    relevant_leaves = leaf_of_item[relevant_items.clamp(min=0)].where(relevant_items >= 0, -1)  # [B, R]
    n_hits = first_matches(recommended, relevant_leaves).sum(dim=2)  # [B, K]
    sizes = leaf_sizes[recommended.clamp(min=0)].where(recommended >= 0, 1)
    ends = sizes.cumsum(dim=1)
    return _TiedRanks(
        start=(ends - sizes).clamp(max=k),
        end=ends.clamp(max=k),
        relevant_share=n_hits.double() / sizes,
        n_relevant=(relevant_items >= 0).sum(dim=1),
    )


def distinct(indices: Tensor) -> Tensor:
    """Sort each row of int64 `[B, R]` and replace repetitions by -1."""
    _check_indices("relevant items", indices)
    if indices.ndim != 2:
        raise InputError(f"relevant items have the shape {list(indices.shape)}, expected [users, items]")
    ordered = indices.sort(dim=1).values
    repeated = torch.zeros_like(ordered, dtype=torch.bool)
    repeated[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    return ordered.masked_fill(repeated, -1)


def first_matches(recommended: Tensor, relevant: Tensor) -> Tensor:
    """Where lists `[B, K]` first name a relevant index `[B, R]` that is not negative, bool `[B, K, R]`."""
    _check_indices("recommended", recommended)
    if recommended.ndim != 2 or len(recommended) != len(relevant):
        expected = f"[{len(relevant)} users, list length] as the relevant items have"
        raise InputError(f"recommended has the shape {list(recommended.shape)}, expected {expected}")
    matches = (recommended[:, :, None] == relevant[:, None, :]) & (relevant >= 0)[:, None, :]
    return matches & (matches.cumsum(dim=1) == 1)


def _check_indices(name: str, values: Tensor) -> None:
    """Refuse scores and masks, which could be compared with indices but mean something else."""
    if values.dtype == torch.bool or values.is_floating_point():
        advice = "turn scores into them by scores.argsort(dim=1, descending=True)"
        raise InputError(f"{name} of type {values.dtype}, expected int64 indices of items, best first: {advice}")


def rank_discounts(k: int, device: torch.device) -> Tensor:
    """The discounts `1 / log2(rank + 1)` of ranks 1 … k, float64 `[k]`."""
    return 1 / torch.arange(2, k + 2, dtype=torch.float64, device=device).log2()


def gain_of_first(discounts: Tensor) -> Tensor:
    """The gain of hits at the first 0, 1, …, k ranks, `[k + 1]`, from the ranks' discounts, `[k]`."""
    return pad(discounts.cumsum(dim=0), (1, 0))
