"""Feature drafts at decoding time: from a trained network to token trees."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.decoding.device.compiled import compiled
from padrec.decoding.device.stopwatch import Phase
from padrec.decoding.layers.cached_layers import CachedLayers
from padrec.decoding.layers.fused_layers import FusedLayers, can_fuse
from padrec.decoding.layers.layer_operations import LayerOperations
from padrec.decoding.layers.placement import Placement, VariableLengthLayout
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TransformersRunner
from padrec.decoding.layers.transformers_layers import PreallocatedCache, TransformersLayers
from padrec.decoding.lists.request import ListRequest, Request
from padrec.decoding.trees.draft import Draft, DraftPlan, DraftSession, Observation, SessionOpener
from padrec.drafts.draft_checkpoint import DraftCheckpoint
from padrec.drafts.draft_memory import DraftInputs, DraftMemory
from padrec.drafts.draft_operations import FirstAttention, TreeLevel, draft_operations_for
from padrec.drafts.feature_draft_network import FeatureDraftNetwork
from padrec.drafts.folded_fusion import FoldedFusion
from padrec.targets import to_precision
from padrec.training import check_ids


class FeatureDraft(Draft):
    """A trained PAD-Rec, HASS or EAGLE draft from a file.

    Args:
        checkpoint: a Lightning checkpoint of `PADRecDraft`, or a folder written by its `save_pretrained`.

    Raises:
        InputError: the file is missing or is not a draft.
    """

    def __init__(self, checkpoint: str) -> None:
        self._checkpoint = DraftCheckpoint.read(Path(checkpoint))
        self._vocabulary, self.feature_layers = (
            self._checkpoint.vocabulary,
            self._checkpoint.architecture.feature_layers,
        )
        self._bound: tuple[TransformersRunner, SessionOpener] | None = None

    def bind(self, runner: TransformersRunner, request: Request[Any]) -> SessionOpener:
        """Build the network, once for all decoders that share the draft and the target; see `Draft.bind`."""
        self._check(runner, request)
        if self._bound is None or self._bound[0] is not runner:
            self._bound = runner, self.loaded(runner, request).bind(runner, request)
        return self._bound[1]

    def loaded(self, runner: TransformersRunner, request: Request[Any]) -> "NetworkDraft":
        """A new network, ready to be bound to this target and request; raises what `bind` raises."""
        self._check(runner, request)
        return NetworkDraft(self.network(runner), self._vocabulary)

    def network(self, runner: TransformersRunner) -> FeatureDraftNetwork:
        """A new network on the target's device and in its precision."""
        network = self._checkpoint.network(runner.model.config)
        to_precision(network, runner.model.dtype)
        return network.to(runner.model.device).eval().requires_grad_(False)

    def _check(self, runner: TransformersRunner, request: Request[Any]) -> None:
        vocabulary = self._vocabulary
        if isinstance(request, ListRequest):
            vocabulary = request.vocabulary
        elif vocabulary.shared_codes:
            found = f"a {type(request).__name__} for a draft whose slots share their code tokens"
            raise InputError(f"{found}: expected a ListRequest, which tracks slots")
        self._checkpoint.check(runner.fingerprint, vocabulary)
        if isinstance(request, ListRequest):
            check_ids(request.catalog, self._checkpoint.catalog, "the draft")


class NetworkDraft(Draft):
    """Proposes with a `FeatureDraftNetwork`.

    Args:
        network: in evaluation mode, on the target's device.
        vocabulary: the target's tokens.
    """

    def __init__(self, network: FeatureDraftNetwork, vocabulary: SemanticIDVocabulary) -> None:
        self.network, self.vocabulary, self.feature_layers = network, vocabulary, network.feature_layers

    def bind(self, runner: TransformersRunner, request: Request[Any]) -> Callable[[DraftPlan], "NetworkDraftSession"]:
        """Share the target's embedding and head; see `Draft.bind`."""
        return partial(NetworkDraftSession, *self.parts(runner))

    def parts(self, runner: TransformersRunner) -> tuple[FoldedFusion, CachedLayers]:
        """The layers' inputs and the layers, for a target."""
        network, model = self.network, runner.model
        layers: CachedLayers
        if can_fuse(network.config):
            layers = fused = FusedLayers(network.layers, network.config, network.rotary, network.norm)
            first, maps = (fused.layers[0].qkv, fused.layers[0].qkv_bias), fused.operations
        else:
            layers = TransformersLayers(self._forward, len(network.layers), model.device)
            first, maps = None, LayerOperations()
        operations = draft_operations_for(model.device, model.dtype)
        return FoldedFusion(network, model, self.vocabulary, maps, operations, first), layers

    def _forward(
        self, hidden: Tensor, positions: Tensor, mask: Tensor, cache: PreallocatedCache, all_states: bool
    ) -> Sequence[Tensor]:
        return hidden, self.network.attend(hidden, positions, mask, cache)


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
            layer, lengths = self._layers.first, self._memory.lengths
            # Inputs are shifted by one: the root was the last input read, and its children follow directly.
            first = None if layer is None else FirstAttention(layer, lengths, depth - 1)
            inputs, self._visible = self._fusion.extend(tokens, self._mapped, slots, depth, level, first)
            depths = self._columns[depth - 1].expand(tokens.shape)
            features, _ = self._layers(
                inputs.hidden, Placement(lengths, depths, level.first, self._visible), inputs.qkv, inputs.seen
            )
            self._n_read += tokens.shape[1]
            logits, self._mapped = self._fusion.look(features)
        return logits

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
