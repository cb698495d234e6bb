"""Items that lists must not contain, as leaves of the catalog."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from padrec.catalog import Catalog, InputError


def excluded_leaves(catalog: Catalog, items: Sequence[Collection[int]], list_length: int) -> Tensor:
    """The leaves that each row excludes, for `Prompts.excluded`.

    A target cannot tell items of one semantic ID apart: a leaf is excluded where all its items are. Where only some
    are, the leaf may still be recommended, for its other items.

    Args:
        catalog: the items.
        items: of each row the item indices that it excludes.
        list_length: K, items in a list.

    Returns:
        int64 `[B, E]`, -1 after a row's last.

    Raises:
        InputError: a row leaves fewer than K leaves; it is named by its number.
    """
    rows = []
    for number, excluded in enumerate(items):
        index = torch.tensor(sorted(set(excluded)), dtype=torch.long)
        count = torch.bincount(catalog.leaf_of_item[index], minlength=catalog.n_leaves)
        rows.append((count == catalog.leaf_sizes).nonzero().flatten())
        left = catalog.n_leaves - len(rows[-1])
        if left < list_length:
            raise InputError(
                f"history {number}: {len(rows[-1])} of {catalog.n_leaves} semantic IDs excluded, which leaves {left}: "
                f"expected at least {list_length} for a list of {list_length} items"
            )
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


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
