"""The draft network with one pass an item, and what its training sees."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from padrec.decoding import additive_mask
from padrec.decoding.lists.tensor_record import pick
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


@dataclass(frozen=True)
class ItemGrid:
    """The items of sequences as a grid: F in each row, of n + 1 tokens.

    Attributes:
        firsts: positions of first codes, int64 `[B, F]`; arbitrary ones where a row has fewer items.
        places: positions of all tokens, int64 `[B, F, n + 1]`.
        follows: whether an item follows right after the one before it in the grid, bool `[B, F]`.
        own: entry of the grid of each position in an item, flat, int64 `[B T]`; 0 for other positions.
        in_item: whether a position is in an item, bool `[B T]`.
    """

    firsts: Tensor
    places: Tensor
    follows: Tensor
    own: Tensor
    in_item: Tensor

    @classmethod
    def of(cls, slots: Tensor, n: int) -> "ItemGrid":
        """From slots, int64 `[B, T]`, of which 0 … n are those of an item's tokens."""
        (batch, length), is_first = slots.shape, slots == 0
        n_items = -(-length // (n + 1))
        firsts = is_first.long().argsort(dim=1, descending=True, stable=True)[:, :n_items]
        places = (firsts[..., None] + torch.arange(n + 1, device=slots.device)).clamp(max=length - 1)
        follows = (firsts - firsts.roll(1, 1) == n + 1) & is_first.gather(1, firsts)
        item = is_first.cumsum(1) - 1 + n_items * torch.arange(batch, device=slots.device)[:, None]
        in_item = (slots <= n).flatten()
        return cls(firsts, places, follows, (item * (n + 1) + slots).flatten() * in_item, in_item)

    def at(self, values: Tensor) -> Tensor:
        """Values `[B, T, *]` at the items' tokens, `[B, F, n + 1, *]`."""
        return pick(values, self.places.flatten(1)).view(*self.places.shape, -1)


def unroll_items(
    network: ItemDraftNetwork,
    embeddings: Tensor,
    features: Tensor,
    slots: Tensor,
    n_steps: int,
    rows: Tensor,
    through_steps: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Run the draft over sequences as drafting does; see `unroll`, which this is for one pass an item.

    Step 0 has a pass at every position, and heads after each of them. In step s ≥ 1 the passes are at first codes, each
    on the pass of step s - 1 at the first code before it, and in step 1 on a root, a token of the item before that is
    drawn uniformly. A pass attends to the target's features up to its root, and to the passes since.

    Args:
        network: see `unroll`.
        embeddings: see `unroll`.
        features: see `unroll`.
        slots: see `unroll`.
        n_steps: see `unroll`.
        rows: positions whose predictions are wanted, as flat indices `b T + t`, int64 `[M]`.
        through_steps: see `unroll`.

    Yields:
        Predictions f̂_{t+1} there, `[M, d]`, and whether they are valid, bool `[M]`: those of step 0's passes, then of
        the heads after one token, two and so on, then of each further step's passes and heads together.
    """
    batch, length = slots.shape
    heads, columns, cache = network.heads, torch.arange(length, device=slots.device), StepCache()
    n, grid = len(heads.tokens), ItemGrid.of(slots, len(heads.tokens))
    own, in_item, own_slots = grid.own[rows], grid.in_item[rows], slots.flatten()[rows]
    embeddings = network.embedded(embeddings)
    sums = heads.token_sums(grid.at(embeddings))  # [B, F, n + 1, r]

    mask = step_mask(columns[None], length, 0)
    features = network(embeddings, network.reduced(features), slots, 0, columns.expand(batch, -1), mask, cache)
    yield features.flatten(0, 1)[rows], torch.ones_like(in_item)
    passed = grid.at(features)
    light, starts = heads.start(passed)
    for since in range(1, n + 1):
        before = (torch.arange(1, n + 1, device=slots.device) - since).clamp(min=0)  # slots of the passes
        predicted = heads(light[:, :, before], starts[:, :, before] + sums[:, :, 1:] - sums[:, :, before])
        yield _predicted(passed[:, :, :1], predicted)[own], in_item & (own_slots >= since)

    root_slots = (torch.rand(grid.firsts.shape, device=slots.device) * (n + 1)).long()  # of the next item's root
    roots, item = grid.firsts + root_slots, columns[: grid.firsts.shape[1]]
    last, state = _of_slot(passed, root_slots), _of_slot(starts - sums, root_slots) + sums[:, :, n]
    valid, own_embeddings = torch.ones_like(grid.follows), pick(embeddings, grid.firsts)
    for step in range(1, n_steps):
        # Everything comes from the item before.
        roots, valid, last, state = (values.roll(1, 1) for values in (roots, valid, last, state))
        valid = valid & grid.follows
        fused = network.position_aware(
            network.fusion, own_embeddings, last if through_steps else last.detach(), torch.zeros_like(roots), step
        )
        passes = [(item == item[:, None] - ago).expand(batch, -1, -1) for ago in reversed(range(step))]
        mask = torch.cat([columns <= roots[..., None], *passes], -1)
        inputs = fused + heads.fusion(nn.functional.silu(state))
        last = network.attend(inputs, grid.firsts, additive_mask(mask, inputs.dtype), cache)  # [B, F, d]
        light, starts = heads.start(last)
        state = starts + sums[:, :, n]
        predicted = heads(light[:, :, None], starts[:, :, None] + sums[:, :, 1:])
        yield _predicted(last[:, :, None], predicted)[own], in_item & valid.flatten()[own // (n + 1)]


def _of_slot(values: Tensor, slots: Tensor) -> Tensor:
    """Values `[B, F, n + 1, d]` of one slot of each item, int64 `[B, F]`: `[B, F, d]`."""
    return values.gather(2, slots[..., None, None].expand(-1, -1, 1, values.shape[-1]))[:, :, 0]


def _predicted(by_pass: Tensor, by_heads: Tensor) -> Tensor:
    """What follows first codes, `[B, F, 1, d]`, and the other tokens, `[B, F, n, d]`: flat, `[B F (n + 1), d]`."""
    return torch.cat([by_pass, by_heads], 2).flatten(0, 2)
