"""Items that share a semantic ID, and how to tell them apart."""

from itertools import groupby
from operator import itemgetter

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from padrec.catalog import InputError
from padrec.quantization.residual_k_means import Quantizer

# Items, up to one more group, whose distances to all codes are in memory at a time.
_BATCH_ITEMS = 16384


def count_collisions(codes: Tensor) -> int:
    """Number of items minus number of distinct semantic IDs, of integer codes `[n, L]`.

    >>> count_collisions(torch.tensor([[0, 1], [0, 1], [0, 1], [2, 0]]))
    2
    """
    return len(codes) - len(torch.unique(codes, dim=0))


def add_disambiguation_slot(codes: Tensor, taken: Tensor | None = None) -> Tensor:
    """Append a slot that numbers the items that share a semantic ID (TIGER, Rajput et al. 2023, section 3.1).

    Args:
        codes: int64 `[n, L]`.
        taken: IDs of other items, integer `[m, L + 1]`.

    Returns:
        int64 `[n, L + 1]`, distinct rows, none of them taken. The last code counts up from 0, or from the first number
        above the taken ones.

    >>> add_disambiguation_slot(torch.tensor([[0, 1], [2, 0], [0, 1]])).tolist()
    [[0, 1, 0], [2, 0, 0], [0, 1, 1]]
    >>> add_disambiguation_slot(torch.tensor([[0, 1], [2, 0]]), taken=torch.tensor([[0, 1, 0]])).tolist()
    [[0, 1, 1], [2, 0, 0]]
    """
    n_items = len(codes)
    kept = codes.new_zeros(0, codes.shape[1] + 1) if taken is None else taken.long()
    _, leaf = torch.unique(torch.cat([codes, kept[:, :-1]]), dim=0, return_inverse=True)
    first_free = leaf.new_zeros(int(leaf.max()) + 1).scatter_reduce(0, leaf[n_items:], kept[:, -1] + 1, "amax")
    leaf = leaf[:n_items]
    sizes = torch.bincount(leaf, minlength=len(first_free))
    order = leaf.argsort(stable=True)
    rank = torch.empty_like(leaf)
    rank[order] = torch.arange(n_items) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return torch.cat([codes, (rank + first_free[leaf])[:, None]], dim=1)


def reassign_collisions(codes: Tensor, vectors: Tensor, quantizer: Quantizer, taken: Tensor | None = None) -> Tensor:
    """Give colliding items the nearest free codes, so that no two items share a semantic ID.

    If more items share the first L − 1 codes than the last slot has codes, the items that lose least first move to
    another code in the slot before the last. Then the colliding items of each prefix divide the unused last codes among
    themselves at the least total squared distance (an optimal assignment). All other items keep their IDs.

    Args:
        codes: the nearest codes, int64 `[n, L]`.
        vectors: item embeddings `[n, d]`.
        quantizer: the quantizer that made the codes.
        taken: IDs of other items, integer `[m, L]`.

    Returns:
        int64 `[n, L]`, distinct rows, none of them taken.

    Raises:
        InputError: more items than IDs: in the only slot, or in the last two slots of a prefix.
    """
    n_items = len(codes)
    kept = codes[:0] if taken is None else torch.unique(taken.long(), dim=0)
    codes = torch.cat([codes, kept])  # rows from n_items on do not move
    if codes.shape[1] > 1:
        _relieve_crowded_prefixes(codes, vectors, quantizer)
    elif len(codes) > quantizer.codebook_sizes[0]:
        raise InputError(f"{len(codes)} items for {quantizer.codebook_sizes[0]} semantic IDs of one slot: add slots")
    _, leaf, sizes = torch.unique(codes, dim=0, return_inverse=True, return_counts=True)
    colliding = sizes[leaf] > 1  # [n + m]
    colliding[n_items:] = False
    prefix_of = _group_of(codes[:, :-1])
    members = torch.isin(prefix_of, torch.unique(prefix_of[colliding])).nonzero().flatten()
    members = members[prefix_of[members].argsort(stable=True)]  # grouped by prefix
    _, counts = torch.unique_consecutive(prefix_of[members], return_counts=True)
    packs = (counts.cumsum(0) // _BATCH_ITEMS).tolist()
    for _, pack in groupby(zip(packs, members.split(counts.tolist()), strict=True), key=itemgetter(0)):
        _assign_last_codes([group for _, group in pack], codes, colliding, vectors, quantizer)
    return codes[:n_items]


def _group_of(prefixes: Tensor) -> Tensor:
    """Number of each item's distinct prefix, `[n]`; all items share the empty prefix."""
    if prefixes.shape[1] == 0:
        return prefixes.new_zeros(len(prefixes))
    group_of: Tensor = torch.unique(prefixes, dim=0, return_inverse=True)[1]
    return group_of


def _assign_last_codes(
    groups: list[Tensor], codes: Tensor, colliding: Tensor, vectors: Tensor, quantizer: Quantizer
) -> None:
    """Divide the free last codes of each group, which shares a prefix, among its colliding items, in place."""
    moving = [group[colliding[group]] for group in groups]
    rows = torch.cat(moving)
    costs = quantizer.distances(vectors[rows], codes[rows, :-1])  # [moving, K]
    for group, movers, cost in zip(groups, moving, costs.split([len(movers) for movers in moving]), strict=True):
        free = torch.ones(costs.shape[1], dtype=torch.bool)
        free[codes[group[~colliding[group]], -1]] = False
        choices = free.nonzero().flatten()
        chosen, columns = linear_sum_assignment(cost[:, choices].double().numpy())
        codes[movers[torch.from_numpy(chosen)], -1] = choices[torch.from_numpy(columns)]


def _relieve_crowded_prefixes(codes: Tensor, vectors: Tensor, quantizer: Quantizer) -> None:
    """Make every L − 1 codes shared by at most as many items as the last slot has codes, in place."""
    parent_of = _group_of(codes[:, :-2])
    _, prefix_of, sizes = torch.unique(codes[:, :-1], dim=0, return_inverse=True, return_counts=True)
    for parent in torch.unique(parent_of[sizes[prefix_of] > quantizer.codebook_sizes[-1]]).tolist():
        _relieve_family((parent_of == parent).nonzero().flatten(), codes, vectors, quantizer)


def _relieve_family(family: Tensor, codes: Tensor, vectors: Tensor, quantizer: Quantizer) -> None:
    """Spread items that share L − 2 codes over the codes of the next slot, in place."""
    n_codes, capacity = quantizer.codebook_sizes[-2:]
    if len(family) > n_codes * capacity:
        found = f"{len(family)} items share the first codes {codes[family[0], :-2].tolist()}"
        advice = "add slots or codes, or a slot that tells colliding items apart"
        raise InputError(f"{found}, which have only {n_codes * capacity} semantic IDs: {advice}")
    room = capacity - torch.bincount(codes[family, -2], minlength=n_codes)  # negative where crowded
    movable = family[family < len(vectors)]
    crowded = movable[room[codes[movable, -2]] < 0]
    costs = quantizer.distances(vectors[crowded], codes[crowded, :-2])  # [crowded, codes]
    loss = costs - costs.gather(1, codes[crowded, -2:-1])
    loss[:, room <= 0] = torch.inf
    n_moves = int(loss.isfinite().sum())
    for choice in loss.flatten().argsort(stable=True)[:n_moves].tolist():  # cheapest first
        row, code = divmod(choice, n_codes)
        item = int(crowded[row])
        old = int(codes[item, -2])
        if room[old] < 0 < room[code]:
            room[old] += 1
            room[code] -= 1
            codes[item, -2] = code
            # The old last code means nothing after the new code: take the nearest.
            codes[item, -1] = quantizer.distances(vectors[item : item + 1], codes[item : item + 1, :-1]).argmin()
