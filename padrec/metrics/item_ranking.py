"""NDCG and recall by item, where a semantic ID represents all items that share it."""

from typing import NamedTuple

from torch import Tensor

from padrec.metrics.ranking import UserMean, distinct, first_matches, gain_of_first, rank_discounts


def item_ndcg(recommended: Tensor, relevant_items: Tensor, leaf_of_item: Tensor, leaf_sizes: Tensor, k: int) -> Tensor:
    """NDCG@k by item of each user: the exact expectation over a random order of the items in each leaf.

    Each leaf of the list is replaced by its items, and the list of items is cut at k. Items of one leaf are tied: each
    is equally likely at each rank that the leaf's items occupy (McSherry and Najork, "Computing information retrieval
    performance measures efficiently in the presence of tied scores", 2008). A repeated leaf occupies ranks but has no
    hits; a recommendation that does not exist occupies one rank.

    Args:
        recommended: leaves, int64 `[B, K]`, best first; negative where a generated item does not exist.
        relevant_items: items, int64 `[B, R]`, padded with -1.
        leaf_of_item: int64 `[n_items]`.
        leaf_sizes: items of each leaf, int64 `[n_leaves]`.
        k: lists of items are cut after k items, at least 1.

    Returns:
        float64 `[B]` in `[0, 1]`; NaN for a user without relevant items.

    Raises:
        InputError: other shapes, or no indices.
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


class _LeafMetric(UserMean):
    """A ranking metric of the items that a list of leaves represents."""

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
