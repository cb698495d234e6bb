"""The draft network with one pass an item, and what its training sees."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
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
    through_steps: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Run the draft over sequences as drafting does; arguments as of `unroll`, which this is for one pass an item.

    Step 0 has a pass at every position, and heads after each of them. In step s ≥ 1 the passes are at first codes, each
    on the pass of step s - 1 at the first code before it, and in step 1 on a root, a token of the item before that is
    drawn uniformly. A pass attends to the target's features up to its root, and to the passes since.

    Yields:
        Predictions f̂_{t+1}, `[B, T, d]`, and where they are valid, bool `[B, T]`: those of step 0's passes, then of
        each of its heads, then of each further step's passes and heads together.
    """
    (batch, length), heads = slots.shape, network.heads
    n_heads, columns, cache = len(heads.tokens), torch.arange(length, device=slots.device), StepCache()
    embeddings = network.embedded(embeddings)
    first, mask = columns.expand(batch, -1), step_mask(columns[None], length, 0)
    features = network(embeddings, network.reduced(features), slots, 0, first, mask, cache)
    # Tokens since the last first code; slots after those of an item belong to no item.
    in_item, since = slots <= n_heads, slots.clamp(max=n_heads)
    followed = list(heads(features, embeddings))
    for n_since, (predicted, _) in enumerate(followed):
        yield predicted, in_item & (slots >= n_since) if n_since else torch.ones_like(in_item)
    is_first = (slots == 0).long()
    firsts = is_first.argsort(dim=1, descending=True, stable=True)[:, : -(-length // (n_heads + 1))]  # [B, F]
    before = (firsts - 1).clamp(min=0)
    n_before = torch.where(in_item, slots, 0).gather(1, before)  # most heads between a root and a first code
    valid = (slots == 0).gather(1, firsts) & (firsts > 0)
    n_between = (torch.rand(firsts.shape, device=slots.device) * (n_before + 1)).long()
    roots, place = before - n_between, torch.arange(firsts.shape[1], device=slots.device)
    own, own_slots = _at(embeddings, firsts), slots.gather(1, firsts)
    for step in range(1, n_steps):
        if step > 1:
            roots, n_between = roots.roll(1, 1), torch.full_like(n_between, n_heads)
            valid = valid.roll(1, 1) & (n_before == n_heads) & (place > 0) & (own_slots == 0)
        last = _at(features, (before - n_between).clamp(min=0))
        hidden = torch.stack([_at(hidden, before) for _, hidden in followed])  # [n + 1, B, F, r]
        hidden = hidden.gather(0, n_between[None, ..., None].expand(-1, -1, -1, hidden.shape[-1]))[0]
        inputs = network.position_aware(
            network.fusion, own, last if through_steps else last.detach(), own_slots, step
        ) + heads.fusion(hidden)
        passes = [(place == place[:, None] - ago).expand(batch, -1, -1) for ago in reversed(range(step))]
        seen = torch.cat([columns <= roots[..., None], *passes], -1)
        output = network.attend(inputs, firsts, additive_mask(seen, inputs.dtype), cache)
        features = torch.zeros_like(features).scatter(1, firsts[..., None].expand_as(output), output.to(features.dtype))
        followed = list(heads(features, embeddings))
        predicted = followed[0][0]
        for n_since, (of_head, _) in enumerate(followed):
            predicted = torch.where((since == n_since)[..., None], of_head, predicted)
        reached = torch.zeros_like(in_item).scatter(1, firsts, valid)
        yield predicted, in_item & reached.gather(1, (columns - since).clamp(min=0))


def _at(values: Tensor, places: Tensor) -> Tensor:
    """Values `[B, T, n]` at places, int64 `[B, F]`: `[B, F, n]`."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[-1]))
