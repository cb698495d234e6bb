"""Items that lists must not contain, as leaves of the catalog."""

from collections.abc import Collection, Sequence, Set

import torch
from torch import Tensor

from padrec.catalog import Catalog, InputError


class LeafExclusion:
    """Which leaves are excluded where items are.

    A target cannot tell items of one semantic ID apart: a leaf is excluded where all its items are. Where only some
    are, the leaf may still be recommended, for its other items.

    Args:
        catalog: the items.
        for_all: item indices that every row excludes; they are counted once, however many rows follow.
    """

    def __init__(self, catalog: Catalog, for_all: Set[int] = frozenset()) -> None:
        self._catalog, self._for_all = catalog, for_all
        self._count = torch.bincount(catalog.leaf_of_item[_tensor(for_all)], minlength=catalog.n_leaves)
        self._leaves = (self._count == catalog.leaf_sizes).nonzero().flatten()

    def leaves(self, items: Sequence[Collection[int]], list_length: int) -> Tensor:
        """The leaves that each row excludes, for `Prompts.excluded`.

        Args:
            items: of each row the item indices that it excludes.
            list_length: K, items in a list.

        Returns:
            int64 `[B, E]`, -1 after a row's last.

        Raises:
            InputError: a row leaves fewer than K leaves; it is named by its number.
        """
        n_leaves, rows = self._catalog.n_leaves, [self._row(excluded) for excluded in items]
        for number, row in enumerate(rows):
            if (left := n_leaves - len(row)) < list_length:
                raise InputError(
                    f"history {number}: {len(row)} of {n_leaves} semantic IDs excluded, which leaves {left}: "
                    f"expected at least {list_length} for a list of {list_length} items"
                )
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)

    def _row(self, items: Collection[int]) -> Tensor:
        catalog = self._catalog
        own, count = catalog.leaf_of_item[_tensor(set(items) - self._for_all)].unique(return_counts=True)
        return torch.cat([self._leaves, own[self._count[own] + count == catalog.leaf_sizes[own]]])


def excluded_leaves(catalog: Catalog, items: Sequence[Collection[int]], list_length: int) -> Tensor:
    """The leaves that each row excludes; see `LeafExclusion.leaves`."""
    return LeafExclusion(catalog).leaves(items, list_length)


def history_leaves(catalog: Catalog, history: Tensor, list_length: int) -> Tensor:
    """The leaves that each row excludes with the items of its history; see `excluded_leaves`.

    Args:
        catalog: the items.
        history: item indices, int64 `[B, H]`, -1 for none.
        list_length: K, items in a list.

    Returns:
        int64 `[B, E]` on the device of `history`.

    Raises:
        InputError: a row leaves fewer than K leaves.
    """
    rows = [[item for item in row if item >= 0] for row in history.tolist()]
    return excluded_leaves(catalog, rows, list_length).to(history.device)


def _tensor(items: Collection[int]) -> Tensor:
    return torch.tensor(list(items), dtype=torch.long)
