"""NDCG and recall by item, where a generated semantic ID stands for all the items that share it."""

from typing import Any, NamedTuple

from torch import Tensor

from padrec.metrics.ranking import distinct, first_matches, gain_of_first, rank_discounts
from padrec.metrics.user_mean import UserMean


class ItemNDCG(UserMean):
    """NDCG@k of the items that a list of leaves stands for, ties split, the mean over users.

    See `item_ndcg` for the ranks of the items of one leaf. Users without relevant items are not counted.

    Args:
        k: length at which lists of items are cut, at least 1.
        **kwargs: arguments of `torchmetrics.Metric`.

    Raises:
        InputError: `k` is below 1.

    Example:
        >>> import torch
        >>> leaf_of_item = torch.tensor([0, 1, 1, 2])
        >>> metric = ItemNDCG(k=2)
        >>> metric.update(
        ...     recommended=torch.tensor([[1, 0]]),
        ...     relevant_items=torch.tensor([[2]]),
        ...     leaf_of_item=leaf_of_item,
        ...     leaf_sizes=torch.bincount(leaf_of_item),
        ... )
        >>> round(metric.compute().item(), 4)  # item 2 is first or second, each in half of the orders
        0.8155
    """

    def __init__(self, k: int, **kwargs: Any) -> None:
        super().__init__("item_ndcg", k, **kwargs)

    def update(
        self,
        recommended: Tensor,
        relevant_items: Tensor,
        leaf_of_item: Tensor,
        leaf_sizes: Tensor,
        counted: Tensor | None = None,
    ) -> None:
        """Add a batch of users.

        Args:
            recommended: leaves, int64 `[B, K]`, best first; negative where the generated item does not exist.
            relevant_items: items, int64 `[B, R]`, padded with -1.
            leaf_of_item: int64 `[n_items]`.
            leaf_sizes: items of each leaf, int64 `[n_leaves]`.
            counted: bool `[B]`; False for rows that only pad the set. By default all rows count.

        Raises:
            InputError: shapes other than these.
        """
        self.add_users(item_ndcg(recommended, relevant_items, leaf_of_item, leaf_sizes, self.k), counted)


class ItemRecall(UserMean):
    """Recall@k of the items that a list of leaves stands for, ties split, the mean over users.

    See `item_ndcg` for the ranks of the items of one leaf. Users without relevant items are not counted.

    Args:
        k: length at which lists of items are cut, at least 1.
        **kwargs: arguments of `torchmetrics.Metric`.

    Raises:
        InputError: `k` is below 1.

    Example:
        >>> import torch
        >>> leaf_of_item = torch.tensor([0, 1, 1, 2])
        >>> metric = ItemRecall(k=1)
        >>> metric.update(
        ...     recommended=torch.tensor([[1, 0]]),
        ...     relevant_items=torch.tensor([[2]]),
        ...     leaf_of_item=leaf_of_item,
        ...     leaf_sizes=torch.bincount(leaf_of_item),
        ... )
        >>> metric.compute().item()
        0.5
    """

    def __init__(self, k: int, **kwargs: Any) -> None:
        super().__init__("item_recall", k, **kwargs)

    def update(
        self,
        recommended: Tensor,
        relevant_items: Tensor,
        leaf_of_item: Tensor,
        leaf_sizes: Tensor,
        counted: Tensor | None = None,
    ) -> None:
        """Add a batch of users.

        Args:
            recommended: leaves, int64 `[B, K]`, best first; negative where the generated item does not exist.
            relevant_items: items, int64 `[B, R]`, padded with -1.
            leaf_of_item: int64 `[n_items]`.
            leaf_sizes: items of each leaf, int64 `[n_leaves]`.
            counted: bool `[B]`; False for rows that only pad the set. By default all rows count.

        Raises:
            InputError: shapes other than these.
        """
        self.add_users(item_recall(recommended, relevant_items, leaf_of_item, leaf_sizes, self.k), counted)


def item_ndcg(recommended: Tensor, relevant_items: Tensor, leaf_of_item: Tensor, leaf_sizes: Tensor, k: int) -> Tensor:
    """NDCG@k by item of each user: the exact expectation over a random order of the items of each leaf.

    The list of items is the list of leaves with each leaf replaced by its items, cut at k. The items of one leaf are
    tied: they share the ranks they take up together, as each is equally likely at each of them (McSherry and Najork,
    "Computing information retrieval performance measures efficiently in the presence of tied scores", 2008). A leaf
    that is recommended again keeps its ranks and brings no hit; a recommendation that does not exist takes up one
    rank.

    Args:
        recommended: leaves, int64 `[B, K]`, best first; negative where the generated item does not exist.
        relevant_items: items, int64 `[B, R]`, padded with -1.
        leaf_of_item: int64 `[n_items]`.
        leaf_sizes: items of each leaf, int64 `[n_leaves]`.
        k: length at which lists of items are cut, at least 1.

    Returns:
        float64 `[B]` in `[0, 1]`; NaN for a user without relevant items.

    Raises:
        InputError: shapes other than these.
    """
    ties = _tied_ranks(recommended, relevant_items, leaf_of_item, leaf_sizes, k)
    gain = gain_of_first(rank_discounts(k, recommended.device))  # [k + 1]
    gained = (ties.relevant_share * (gain[ties.end] - gain[ties.start])).sum(dim=1)
    return gained / gain[ties.n_relevant.clamp(max=k)]


def item_recall(
    recommended: Tensor, relevant_items: Tensor, leaf_of_item: Tensor, leaf_sizes: Tensor, k: int
) -> Tensor:
    """Recall@k by item of each user: the exact expectation over a random order of the items of each leaf.

    Ties, repeated leaves and recommendations that do not exist are treated as in `item_ndcg`.

    Args:
        recommended: leaves, int64 `[B, K]`, best first; negative where the generated item does not exist.
        relevant_items: items, int64 `[B, R]`, padded with -1.
        leaf_of_item: int64 `[n_items]`.
        leaf_sizes: items of each leaf, int64 `[n_leaves]`.
        k: length at which lists of items are cut, at least 1.

    Returns:
        float64 `[B]` in `[0, 1]`; NaN for a user without relevant items.

    Raises:
        InputError: shapes other than these.
    """
    ties = _tied_ranks(recommended, relevant_items, leaf_of_item, leaf_sizes, k)
    hits = (ties.relevant_share * (ties.end - ties.start)).sum(dim=1)
    return hits / ties.n_relevant


class _TiedRanks(NamedTuple):
    """The ranks `start + 1 … end` that each leaf's items take up before the cut."""

    start: Tensor  # int64 [B, K], at most k
    end: Tensor  # int64 [B, K], at most k
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
