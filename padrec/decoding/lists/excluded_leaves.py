"""Items that lists must not contain, as leaves of the catalog."""

from collections.abc import Collection, Sequence, Set

import torch
from torch import Tensor

from padrec.catalog import Catalog, InputError
from padrec.data.item_sequences import ItemSequences


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
        n_leaves, own = self._catalog.n_leaves, self._own(items)
        for number, n_own in enumerate(own.lengths.tolist()):
            if (left := n_leaves - len(self._leaves) - n_own) < list_length:
                raise InputError(
                    f"history {number}: {n_leaves - left} of {n_leaves} semantic IDs excluded, which leaves {left}: "
                    f"expected at least {list_length} for a list of {list_length} items"
                )
        return torch.cat([self._leaves.expand(len(items), -1), own.padded()], 1)

    def _own(self, items: Sequence[Collection[int]]) -> ItemSequences:
        """The leaves that each row excludes beside those of all."""
        n_leaves = self._catalog.n_leaves
        rows = ItemSequences.from_lists([list(set(row) - self._for_all) for row in items])
        of_rows = torch.arange(len(rows)).repeat_interleave(rows.lengths) * n_leaves
        found, count = (of_rows + self._catalog.leaf_of_item[rows.items]).unique(return_counts=True)
        row, leaf = found // n_leaves, found % n_leaves
        whole = self._count[leaf] + count == self._catalog.leaf_sizes[leaf]
        return ItemSequences.from_lengths(leaf[whole], row[whole].bincount(minlength=len(rows)))


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
