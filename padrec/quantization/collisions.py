"""Items that share a semantic ID, and how to tell them apart."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from padrec.catalog import InputError
from padrec.quantization.quantizer import Quantizer

# Items whose distances to all codes are in memory at a time.
_BATCH_ITEMS = 16384


def count_collisions(codes: Tensor) -> int:
    """Items more than semantic IDs.

    Args:
        codes: integer `[n, L]`.

    >>> count_collisions(torch.tensor([[0, 1], [0, 1], [0, 1], [2, 0]]))
    2
    """
    return len(codes) - len(torch.unique(codes, dim=0))


def add_disambiguation_slot(codes: Tensor, taken: Tensor | None = None) -> Tensor:
    """Append a slot that counts the items of one semantic ID (TIGER, Rajput et al. 2023, section 3.1).

    Args:
        codes: int64 `[n, L]`.
        taken: IDs that other items have and keep, integer `[m, L + 1]`; None where there are none.

    Returns:
        int64 `[n, L + 1]`, no row twice and none of those taken. The last code is 0 for the first item of an ID, 1 for
        the second, and so on, behind those that are taken.

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

    Where more items share the first L − 1 codes than the last slot has codes, those that lose least by it first take
    another code in the slot before the last. Then, behind each prefix, the colliding items share out the last codes
    that nobody else has, at the least total squared distance (an optimal assignment). All other items keep their IDs.

    Args:
        codes: the nearest codes, int64 `[n, L]`.
        vectors: item embeddings `[n, d]`.
        quantizer: that made the codes.
        taken: IDs that other items have and keep, integer `[m, L]`; None where there are none.

    Returns:
        int64 `[n, L]`, no row twice and none of those taken.

    Raises:
        InputError: one slot too small for all items, or more items behind L − 2 codes than the last two slots have IDs.
    """
    n_items = len(codes)
    kept = codes[:0] if taken is None else torch.unique(taken.long(), dim=0)
    codes = torch.cat([codes, kept])  # whoever is behind the first n_items does not move
    if codes.shape[1] > 1:
        _relieve_crowded_prefixes(codes, vectors, quantizer)
    elif len(codes) > quantizer.codebook_sizes[0]:
        raise InputError(f"{len(codes)} items for {quantizer.codebook_sizes[0]} semantic IDs of one slot: add slots")
    _, leaf, sizes = torch.unique(codes, dim=0, return_inverse=True, return_counts=True)
    colliding = sizes[leaf] > 1  # [n + m]
    colliding[n_items:] = False
    _, prefix_of = _groups(codes[:, :-1])
    touched = torch.unique(prefix_of[colliding])
    members = torch.isin(prefix_of, touched).nonzero().flatten()
    members = members[prefix_of[members].argsort(stable=True)]  # one prefix after the other
    _, counts = torch.unique_consecutive(prefix_of[members], return_counts=True)
    for items in _packed(list(members.split(counts.tolist()))):
        _assign_last_codes(items, codes, colliding, vectors, quantizer)
    return codes[:n_items]


def _groups(prefixes: Tensor) -> tuple[Tensor, Tensor]:
    """Different prefixes `[groups, l]`, and each item's `[n]`; with no slots all items are one group."""
    if prefixes.shape[1] == 0:
        return prefixes[:1], torch.zeros(len(prefixes), dtype=torch.long)
    groups, of_item = torch.unique(prefixes, dim=0, return_inverse=True)
    return groups, of_item


def _packed(groups: list[Tensor]) -> list[list[Tensor]]:
    """Consecutive groups together until they hold enough items to compute at once."""
    packs: list[list[Tensor]] = []
    size = _BATCH_ITEMS
    for group in groups:
        if size + len(group) > _BATCH_ITEMS:
            packs.append([])
            size = 0
        packs[-1].append(group)
        size += len(group)
    return packs


def _assign_last_codes(
    groups: list[Tensor], codes: Tensor, colliding: Tensor, vectors: Tensor, quantizer: Quantizer
) -> None:
    """Behind each prefix, share out the free last codes among the colliding items, in place."""
    moving = torch.cat([group[colliding[group]] for group in groups])
    costs = quantizer.distances(vectors[moving], codes[moving, :-1])  # [moving, K]
    start = 0
    for group in groups:
        movers = group[colliding[group]]
        settled = codes[group[~colliding[group]], -1]
        free = torch.ones(costs.shape[1], dtype=torch.bool)
        free[settled] = False
        choices = free.nonzero().flatten()
        cost = costs[start : start + len(movers)][:, choices]
        start += len(movers)
        rows, columns = linear_sum_assignment(cost.double().numpy())
        codes[movers[torch.from_numpy(rows)], -1] = choices[torch.from_numpy(columns)]


def _relieve_crowded_prefixes(codes: Tensor, vectors: Tensor, quantizer: Quantizer) -> None:
    """Let no more items share L − 1 codes than the last slot has codes, in place."""
    capacity = quantizer.codebook_sizes[-1]
    _, parent_of = _groups(codes[:, :-2])
    _, prefix_of, sizes = torch.unique(codes[:, :-1], dim=0, return_inverse=True, return_counts=True)
    for parent in torch.unique(parent_of[sizes[prefix_of] > capacity]).tolist():
        family = (parent_of == parent).nonzero().flatten()
        _relieve_family(family, codes, vectors, quantizer)


def _relieve_family(family: Tensor, codes: Tensor, vectors: Tensor, quantizer: Quantizer) -> None:
    """Spread the items that share L − 2 codes over the codes of the slot behind, in place."""
    n_codes, capacity = quantizer.codebook_sizes[-2:]
    if len(family) > n_codes * capacity:
        raise InputError(
            f"{len(family)} items share the first codes {codes[family[0], :-2].tolist()}, for {n_codes * capacity} "
            "semantic IDs behind them: add slots or codes, or tell items apart by a slot of its own"
        )
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
            # In the new place the old last code means nothing: take the nearest.
            codes[item, -1] = quantizer.distances(vectors[item : item + 1], codes[item : item + 1, :-1]).argmin()
