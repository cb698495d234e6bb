"""A feature draft at work on batches of one shape."""

import torch
from torch import Tensor

from padrec.decoding.device.compiled import compiled
from padrec.decoding.device.stopwatch import Phase
from padrec.decoding.layers.cached_layers import CachedLayers
from padrec.decoding.layers.placement import Placement, VariableLengthLayout
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.trees.draft import DraftPlan, DraftSession, Observation
from padrec.drafts.draft_memory import DraftInputs, DraftMemory
from padrec.drafts.draft_operations import FirstAttention, TreeLevel
from padrec.drafts.folded_fusion import FoldedFusion


class NetworkDraftSession(DraftSession):
    """A `NetworkDraft` for batches of one shape.

    Only inputs with the target's own features stay in the KV cache. Tree nodes are written after them and overwritten
    in the next round, which reads the accepted tokens again with their true features.

    Args:
        fusion: computes the layer's inputs and the logits.
        layers: the draft's layers.
        plan: the batch shape and the rounds.
    """

    def __init__(self, fusion: FoldedFusion, layers: CachedLayers, plan: DraftPlan) -> None:
        self._fusion, self._layers = fusion, layers.open(plan.batch, plan.capacity)
        model = plan.runner.model
        root = torch.zeros(plan.batch, 1, model.config.hidden_size, dtype=model.dtype, device=model.device)
        self._memory = DraftMemory(root, plan.max_depth + 1, fusion.feature_size)
        self._columns = torch.arange(plan.capacity, device=model.device)
        self._nodes = self._columns[: plan.draft_rows]
        self._n_read = 0  # nodes of this round
        self._mapped: Tensor  # [B, p, d] mapped features of the depth read last
        self._visible: Tensor | None = None  # [B, p, R] nodes that this depth sees; None for the root

    def begin(self, prompts: Prompts, features: Tensor, first: Tensor, first_slot: Tensor) -> None:
        """Read the prompts shifted by one: token i + 1 with the target's feature of token i."""
        tokens, slots = _shifted(prompts.tokens, prompts.slots, prompts.lengths, first, first_slot)
        self._memory.lengths.zero_()
        self._memory.kept.valid.zero_()
        self._read(DraftInputs(features, tokens, slots, prompts.lengths), prompts.layout())

    def root_logits(self) -> Tensor:
        """Read the tokens kept in the last round and predict the next one; see `DraftSteps`."""
        with Phase.DRAFT_PASSES.named():
            self._read(self._memory.kept)
            logits, self._mapped = self._fusion.look(self._memory.root)
        self._visible, self._n_read = None, 0
        return logits[:, 0]

    def extend(self, tokens: Tensor, parents: Tensor, slots: Tensor, depth: int) -> Tensor:
        """Read the nodes of one depth; see `DraftSteps`."""
        with Phase.DRAFT_PASSES.named():
            level = TreeLevel(parents, self._visible, self._nodes, self._n_read)
            # Inputs are shifted by one: the root was the last input read, and its children follow directly.
            places = self._columns[depth - 1].expand(len(tokens))
            logits, self._mapped = self._fusion.look(self._pass(tokens, self._mapped, slots, depth, level, places))
        return logits

    def _pass(
        self, tokens: Tensor, mapped: Tensor, slots: Tensor, step: int, level: TreeLevel, places: Tensor
    ) -> Tensor:
        """The layers' outputs `[B, k, d]`; see `FoldedFusion.extend`. `places` are as in `FirstAttention`."""
        layer, lengths = self._layers.first, self._memory.lengths
        first = None if layer is None else FirstAttention(layer, lengths, places)
        inputs, self._visible = self._fusion.extend(tokens, mapped, slots, step, level, first)
        placement = Placement(lengths, places[:, None].expand(tokens.shape), level.first, self._visible)
        features, _ = self._layers(inputs.hidden, placement, inputs.qkv, inputs.seen)
        self._n_read += tokens.shape[1]
        return features

    def observe(self, observation: Observation) -> None:
        """Remember the tokens that the target kept."""
        self._memory.remember(observation)

    def _read(self, inputs: DraftInputs, layout: VariableLengthLayout | None = None) -> None:
        read = self._fusion.read(inputs.features, inputs.tokens, inputs.slots)
        depths = self._columns[: inputs.tokens.shape[1]].expand(inputs.tokens.shape)
        output, _ = self._layers(read.hidden, Placement(self._memory.lengths, depths, layout=layout), read.qkv)
        self._memory.move_on(output, inputs.valid)


@compiled
def _shifted(
    tokens: Tensor, slots: Tensor, lengths: Tensor, first: Tensor, first_slot: Tensor
) -> tuple[Tensor, Tensor]:
    """Shift the tokens and slots `[B, P]` of prompts left by one and append the lists' first ones."""
    last = lengths[:, None] - 1
    return (
        tokens.roll(-1, 1).scatter(1, last, first[:, None]),
        slots.roll(-1, 1).scatter(1, last, first_slot[:, None]),
    )
