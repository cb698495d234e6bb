"""Items that lists must not contain, as leaves of the catalog."""

from collections.abc import Collection, Sequence, Set

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from padrec.catalog import Catalog, InputError
from padrec.data.item_sequences import padded_rows

_Ints = NDArray[np.int64]


class LeafExclusion:
    """Which leaves are excluded where items are.

    A target cannot tell items of one semantic ID apart: a leaf is excluded where all its items are. Where only some
    are, the leaf may still be recommended, for its other items.

    Args:
        catalog: the items.
        for_all: item indices that every row excludes; they are counted once, however many rows follow.
    """

    def __init__(self, catalog: Catalog, for_all: Set[int] = frozenset()) -> None:
        self._for_all = for_all
        # Arrays, whose operations take a fifth of a tensor's time on rows of a few items.
        self._leaf_of_item = catalog.leaf_of_item.numpy(force=True)
        count = np.bincount(self._leaf_of_item[list(for_all)], minlength=catalog.n_leaves)
        self._left = catalog.leaf_sizes.numpy(force=True) - count  # items of each leaf that are not excluded for all
        self._leaves = (self._left == 0).nonzero()[0]

    def leaves(self, items: Sequence[Collection[int]], list_length: int, least: int = 0) -> Tensor:
        """The leaves that each row excludes, for `Prompts.excluded`.

        Args:
            items: of each row the item indices that it excludes.
            list_length: K, items in a list.
            least: columns that the result has at least.

        Returns:
            int64 `[B, E]`, -1 after a row's last.

        Raises:
            InputError: a row leaves fewer than K leaves; it is named by its number.
        """
        leaves, lengths = self._own(items)
        n_leaves = len(self._left)
        for number, n_own in enumerate(lengths.tolist()):
            if (left := n_leaves - len(self._leaves) - n_own) < list_length:
                raise InputError(
                    f"history {number}: {n_leaves - left} of {n_leaves} semantic IDs excluded, which leaves {left}: "
                    f"expected at least {list_length} for a list of {list_length} items"
                )
        n_for_all, own = len(self._leaves), padded_rows(leaves, lengths)
        table = np.full((len(items), max(least, n_for_all + own.shape[1])), -1)
        table[:, :n_for_all] = self._leaves
        table[:, n_for_all : n_for_all + own.shape[1]] = own
        return torch.from_numpy(table)

    def _own(self, items: Sequence[Collection[int]]) -> tuple[_Ints, _Ints]:
        """The leaves that each row excludes beside those of all, one row after the other, and their numbers."""
        rows, n_leaves = [list(set(row) - self._for_all) for row in items], len(self._left)
        leaves = self._leaf_of_item[np.array([item for row in rows for item in row], dtype=np.int64)]
        lengths = np.array([len(row) for row in rows])
        if (self._left[leaves] == 1).all():  # as a rule, since few items share a leaf
            return leaves, lengths
        of_rows = np.repeat(np.arange(len(rows)), lengths) * n_leaves
        found, count = np.unique(of_rows + leaves, return_counts=True)
        row, leaf = np.divmod(found, n_leaves)
        whole = self._left[leaf] == count
        return leaf[whole], np.bincount(row[whole], minlength=len(rows))


def excluded_leaves(catalog: Catalog, items: Sequence[Collection[int]], list_length: int) -> Tensor:
    """The leaves that each row excludes; see `LeafExclusion.leaves`."""
    return LeafExclusion(catalog).leaves(items, list_length)


def history_leaves(catalog: Catalog, history: Tensor, list_length: int) -> Tensor:
    """The leaves that each row excludes with the items of its history, int64 `[B, H]`, -1 for none.

    See `LeafExclusion.leaves`; the result is on the device of `history`.
    """
    rows = [[item for item in row if item >= 0] for row in history.tolist()]
    return excluded_leaves(catalog, rows, list_length).to(history.device)
