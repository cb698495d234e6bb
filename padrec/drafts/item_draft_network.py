"""The draft network with one pass an item, and what its training sees."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from padrec.decoding import additive_mask
from padrec.drafts.context_alignment import StepCache, step_mask
from padrec.drafts.feature_draft_network import FeatureDraftNetwork
from padrec.drafts.sequential_heads import SequentialHeads


class ItemDraftNetwork(FeatureDraftNetwork):
    """A feature draft whose passes after the root stand at items' first codes alone; heads predict the tokens between.

    Args:
        target_config: see `FeatureDraftNetwork`.
        n_heads: see `SequentialHeads`; an item has one token more.
        rank: see `SequentialHeads`.
        **settings: see `FeatureDraftNetwork`.
    """

    heads: SequentialHeads

    def __init__(self, target_config: PretrainedConfig, *, n_heads: int, rank: int, **settings: Any) -> None:
        super().__init__(target_config, **settings)
        self.heads = SequentialHeads(self.hidden_size, n_heads, rank)


def unroll_items(
    network: ItemDraftNetwork,
    embeddings: Tensor,
    features: Tensor,
    slots: Tensor,
    n_steps: int,
    rows: Tensor,
    through_steps: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Run the draft over sequences as drafting does; arguments as of `unroll`, but for `rows`.

    Step 0 has a pass at every position, and heads after each of them. In step s ≥ 1 the passes are at first codes, each
    on the pass of step s - 1 at the first code before it, and in step 1 on a root, a token of the item before that is
    drawn uniformly. A pass attends to the target's features up to its root, and to the passes since.

    Args:
        rows: the positions whose predictions are wanted, as flat indices `b T + t`, int64 `[M]`.

    Yields:
        Predictions f̂_{t+1} there, `[M, d]`, and whether they are valid, bool `[M]`: those of step 0's passes, then of
        the heads after one token, two and so on, then of each further step's passes and heads together.
    """
    (batch, length), heads = slots.shape, network.heads
    n_heads, columns, cache = len(heads.tokens), torch.arange(length, device=slots.device), StepCache()
    embeddings = network.embedded(embeddings)
    every, mask = columns.expand(batch, -1), step_mask(columns[None], length, 0)
    features = network(embeddings, network.reduced(features), slots, 0, every, mask, cache)
    # Items as a grid: F in each row, of n + 1 tokens each.
    is_first, slot = (slots == 0).long(), torch.arange(n_heads + 1, device=slots.device)
    firsts = is_first.argsort(dim=1, descending=True, stable=True)[:, : -(-length // (n_heads + 1))]  # [B, F]
    grid = (firsts[..., None] + slot).clamp(max=length - 1)  # [B, F, n + 1]
    item = torch.arange(firsts.shape[1], device=slots.device)
    items = is_first.cumsum(1) - 1 + len(item) * torch.arange(batch, device=slots.device)[:, None]
    own_slots, own_items = slots.flatten()[rows], items.flatten()[rows]
    in_item = (own_slots <= n_heads) & (own_items >= 0)
    own = (own_items * (n_heads + 1) + own_slots).clamp(min=0) * in_item  # [M]
    sums = heads.token_sums(_at(embeddings, grid))  # [B, F, n + 1, r]

    yield features.flatten(0, 1)[rows], torch.ones_like(in_item)
    passed = _at(features, grid)
    light, starts = heads.start(passed)
    for since in range(1, n_heads + 1):
        before = (slot - since).clamp(min=0)[1:]
        predicted = heads(light[:, :, before], starts[:, :, before] + sums[:, :, 1:] - sums[:, :, before])
        yield _picked(light, predicted, own), in_item & (own_slots >= since)
    root_slots = (torch.rand(firsts.shape, device=slots.device) * (n_heads + 1)).long()  # [B, F], for the next item
    roots = firsts + root_slots
    follows = (item > 0) & (firsts - firsts.roll(1, 1) == n_heads + 1) & (slots.gather(1, firsts) == 0)
    valid = torch.ones_like(follows)
    for step in range(1, n_steps):
        roots, valid = roots.roll(1, 1), valid.roll(1, 1) & follows
        if step == 1:
            last, state = _of_slot(passed, root_slots), _of_slot(starts - sums, root_slots) + sums[:, :, -1]
        else:
            last, state = passed, starts + sums[:, :, -1]
        last, state = (last if through_steps else last.detach()).roll(1, 1), nn.functional.silu(state).roll(1, 1)
        inputs = network.position_aware(
            network.fusion, _at(embeddings, firsts), last, slots.gather(1, firsts), step
        ) + heads.fusion(state)
        passes = [(item == item[:, None] - ago).expand(batch, -1, -1) for ago in reversed(range(step))]
        seen = torch.cat([columns <= roots[..., None], *passes], -1)
        passed = network.attend(inputs, firsts, additive_mask(seen, inputs.dtype), cache)  # [B, F, d]
        light, starts = heads.start(passed)
        predicted = heads(light[:, :, None], starts[:, :, None] + sums[:, :, 1:])
        yield _picked(passed[:, :, None], predicted, own), in_item & valid.flatten()[own // (n_heads + 1)]


def _at(values: Tensor, places: Tensor) -> Tensor:
    """Values `[B, T, n]` at places, int64 `[B, *]`: `[B, *, n]`."""
    flat = places.flatten(1)
    return values.gather(1, flat[..., None].expand(-1, -1, values.shape[-1])).view(*places.shape, -1)


def _of_slot(values: Tensor, slots: Tensor) -> Tensor:
    """Values `[B, F, n + 1, *]` of one slot of each item, int64 `[B, F]`: `[B, F, *]`."""
    return values.gather(2, slots[..., None, None].expand(-1, -1, 1, values.shape[-1]))[:, :, 0]


def _picked(first: Tensor, others: Tensor, own: Tensor) -> Tensor:
    """Entries of the grid of items, `[M, d]`: the first slot's, `[B, F, 1 or more, d]`, and others, `[B, F, n, d]`."""
    return torch.cat([first[:, :, :1], others], 2).flatten(0, 2).index_select(0, own)
