"""The inputs of a feature draft's layers, and its heads, computed by PyTorch or by kernels."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from padrec.decoding.device.early_launch import has_kernels
from padrec.decoding.layers.layer_operations import LayerAttention, wide_product
from padrec.decoding.lists.tensor_record import pick


class LayerInputs(NamedTuple):
    """What a draft's layers read."""

    hidden: Tensor  # ũ, [B, T, d]
    qkv: Tensor | None = None  # queries, keys and values of the first layer, [B, T, q]
    seen: Tensor | None = None  # what the first layer's attention found, [B T, H n]


class StepTerms(NamedTuple):
    """What is added to the mapped features at one draft step; see `FoldedFusion`.

    The inputs are n = d + q numbers (q is 0 where the first layer computes its queries, keys and values itself), and g
    more are scores of the gate: one, or n of a vector gate; none without step embeddings.
    """

    table: Tensor  # of each token, [V, n + g]
    n_units: int  # d
    n_inputs: int  # n
    slots: Tensor | None = None  # of each slot, [L + 2, n], where the table does not hold them
    step: Tensor | None = None  # times the sigmoid of the scores, [n]; None at step 0


class TreeLevel(NamedTuple):
    """The k nodes of one depth of a draft's tree of R nodes; p nodes are one depth above."""

    parents: Tensor  # each node's parent among those above, int64 [B, k]
    above: Tensor | None  # nodes that those above see, bool [B, p, R]; None for the root
    nodes: Tensor  # 0 … R - 1, int64 [R]
    first: int  # number of this depth's first node

    def visible(self) -> Tensor:
        """Which nodes each node sees: itself and what its parent sees, bool `[B, k, R]`."""
        itself = self.nodes[self.first :][: self.parents.shape[1], None] == self.nodes  # [k, R]
        itself = itself.expand(len(self.parents), -1, -1)
        return itself if self.above is None else itself | pick(self.above, self.parents)


class FirstAttention(NamedTuple):
    """The attention of a draft's first layer."""

    layer: LayerAttention
    lengths: Tensor  # columns of each row that hold its past, int64 [B]
    places: Tensor  # of the nodes, after the past, int64 [B]


class HeadTerms(NamedTuple):
    """A draft's n sequential heads; see `FoldedItemFusion`."""

    table: Tensor  # M_s ē of each token, [n, V, r]
    output: Tensor  # of m units, [n, m, r]


class HeadStates(NamedTuple):
    """The p nodes of one depth, between two passes; see `SequentialHeads`."""

    base: Tensor  # what heads add to, of the last P passes, [B, P, m]
    sums: Tensor  # z, at least float32, [B, p, r]
    passes: Tensor | None = None  # each node's last pass, int64 [B, p]; None right after the passes

    def of_parents(self, parents: Tensor) -> tuple[Tensor, Tensor]:
        """Sums and passes of each node's parent, int64 `[B, k]`."""
        return pick(self.sums, parents), parents if self.passes is None else self.passes.gather(1, parents)


class DraftOperations:
    """The operations in PyTorch; `TritonDraftOperations` computes them with GPU kernels."""

    def fuse(
        self,
        tokens: Tensor,
        mapped: Tensor,
        terms: StepTerms,
        slots: Tensor,
        level: TreeLevel | None = None,
        first: FirstAttention | None = None,
    ) -> tuple[LayerInputs, Tensor | None]:
        """Layer inputs; see `FoldedFusion`.

        Args:
            tokens: int64 `[B, T]`.
            mapped: map of the feature before each token, `[B, T, n + g]`, or of the p nodes above, `[B, p, n + g]`; at
                step 0 `[B, T, n]` will do.
            terms: of the step.
            slots: of the tokens, int64 `[B, T]`.
            level: the T nodes, if the tokens are those of a tree.
            first: what the nodes attend to in the first layer. Kernels then compute its attention in the same launch.

        Returns:
            The inputs, and in a tree which nodes each node sees, bool `[B, T, R]`.
        """
        n, n_units = terms.n_inputs, terms.n_units
        before = mapped if level is None else pick(mapped, level.parents)
        total = before + terms.table[tokens][..., : mapped.shape[-1]]
        inputs = total[..., :n]
        if terms.step is not None:
            inputs = inputs + total[..., n:].sigmoid() * terms.step
        if terms.slots is not None:
            inputs = inputs + terms.slots[slots]
        hidden, qkv = inputs.to(terms.table.dtype).split([n_units, n - n_units], -1)
        visible = None if level is None else level.visible()
        return LayerInputs(hidden, qkv if n > n_units else None), visible

    def follow(
        self, tokens: Tensor, parents: Tensor, slots: Tensor, states: HeadStates, heads: HeadTerms
    ) -> tuple[Tensor, HeadStates]:
        """What heads predict after nodes that a pass does not read.

        Args:
            tokens: int64 `[B, k]`.
            parents: each node's parent among those of the states, int64 `[B, k]`.
            slots: see `ItemDraftSteps.follow`.
            states: of the depth above.
            heads: of slots from 1 on.

        Returns:
            What a head adds to and adds, at least float32, `[B, k, m]`, and the nodes' states.
        """
        head, (sums, passes) = (slots - 1).clamp(min=0), states.of_parents(parents)
        sums = sums + heads.table[head[:, None], tokens].masked_fill((slots == 0)[:, None, None], 0)
        hidden = functional.silu(sums).to(heads.output.dtype).flatten(0, 1)
        # Rows may need different heads: all of them cost less than a copy of each row's.
        by_head = torch.stack([wide_product(hidden, output) for output in heads.output])
        predicted = by_head.unflatten(1, tokens.shape)[head, torch.arange(len(tokens), device=tokens.device)]
        return pick(states.base, passes) + predicted, HeadStates(states.base, sums, passes)

    def carry(
        self, parents: Tensor, states: HeadStates, weight: Tensor, mapped: Tensor, above: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """What first codes read of their last pass and of the tokens since, and which nodes that pass sees.

        Args:
            parents: see `follow`.
            states: of the depth above.
            weight: Q, mapped as the pass's features are, `[n + g, r]`.
            mapped: map of the last passes' features, `[B, P, n + g]`.
            above: nodes that the last passes see, bool `[B, P, R]`; None for the root's.

        Returns:
            The mapped features before the first codes, `[B, k, n + g]`, and the nodes, bool `[B, k, R]`.
        """
        sums, passes = states.of_parents(parents)
        hidden = functional.silu(sums).to(weight.dtype).flatten(0, 1)
        carried = pick(mapped, passes) + wide_product(hidden, weight).view(*parents.shape, -1)
        return carried, None if above is None else pick(above, passes)


def draft_operations_for(device: torch.device, dtype: torch.dtype) -> DraftOperations:
    """Kernels if the device runs them, else PyTorch."""
    if has_kernels(device, dtype):
        from padrec.drafts.triton_draft_operations import TritonDraftOperations

        return TritonDraftOperations()
    return DraftOperations()
