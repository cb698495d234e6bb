"""Feature drafts at decoding time: from a network to token trees."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.decoding.device.compiled import compiled
from padrec.decoding.device.stopwatch import Phase
from padrec.decoding.layers.cached_layers import CachedLayers, LayerSession
from padrec.decoding.layers.fused_layers import FusedLayers, can_fuse
from padrec.decoding.layers.layer_operations import LayerOperations
from padrec.decoding.layers.placement import Placement, VariableLengthLayout
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TransformersRunner
from padrec.decoding.layers.transformers_layers import LayerForward, PreallocatedCache, TransformersLayers
from padrec.decoding.lists.request import ListRequest, Request
from padrec.decoding.trees.draft import Draft, DraftPlan, DraftSession, Observation
from padrec.drafts.draft_memory import DraftInputs, DraftMemory
from padrec.drafts.draft_operations import DraftOperations, draft_operations_for
from padrec.drafts.feature_draft_network import FeatureDraftNetwork
from padrec.drafts.folded_fusion import Fusion, fusion_for


class NetworkDraft(Draft):
    """Proposes with a `FeatureDraftNetwork`.

    Args:
        network: the draft, in evaluation mode, on the target's device; None where `prepare` sets it.
    """

    def __init__(self, network: FeatureDraftNetwork | None = None) -> None:
        self._network = network
        self._fusion: Fusion
        self._layers: CachedLayers
        self._operations: DraftOperations

    @property
    def network(self) -> FeatureDraftNetwork:
        """The draft."""
        if self._network is None:
            raise RuntimeError("the draft has no network yet: call prepare first")
        return self._network

    def prepare(self, runner: TransformersRunner, request: Request[Any]) -> None:
        """Share the target's embedding and head; see `Draft.prepare`."""
        vocabulary = vocabulary_of(request)
        model, network = runner.model, self.network
        layers = LayerOperations()
        if can_fuse(network.config):
            self._layers = fused = FusedLayers([network.layer], network.config, network.rotary)
            layers = fused.operations
        else:
            self._layers = TransformersLayers(_forward_of(network), n_layers=1)
        self._operations = draft_operations_for(model.device, model.dtype)
        maps = model.get_input_embeddings(), model.get_output_embeddings()
        self._fusion = fusion_for(network, *maps, vocabulary, layers, self._operations)

    def open(self, plan: DraftPlan) -> "NetworkDraftSession":
        """See `Draft.open`."""
        return NetworkDraftSession(self._fusion, self._layers.open(plan.batch, plan.capacity), self._operations, plan)


class NetworkDraftSession(DraftSession):
    """A `NetworkDraft` at work on batches of one shape.

    The KV cache holds only inputs whose features are the target's own: nodes of a tree are written after them and
    forgotten, and what the target keeps is read again with its true features.

    Args:
        fusion: makes the layer's inputs.
        layers: the draft's layer with its cache.
        operations: compute what is kept from round to round.
        plan: of the rounds.
    """

    def __init__(self, fusion: Fusion, layers: LayerSession, operations: DraftOperations, plan: DraftPlan) -> None:
        self._fusion, self._layers, self._operations = fusion, layers, operations
        model = plan.runner.model
        self._memory = DraftMemory.empty(
            plan.batch, plan.max_depth + 1, model.config.hidden_size, model.dtype, model.device
        )
        most = max(plan.draft_rows, plan.max_depth + 1, plan.capacity)
        self._columns = torch.arange(most, device=model.device)
        self._tree_rows = self._columns[: plan.draft_rows]
        self._parent_read: Tensor  # [B, k, *] of the outputs of the last call, what the fusion reads
        self._parent_mask: Tensor | None = None  # [B, k, tree rows] what its nodes see; None after the root
        self._rows_used = 0

    def begin(self, prompts: Prompts, features: Tensor, first: Tensor, first_slot: Tensor) -> None:
        """Read the prompts, each shifted by one: token i + 1 beside the target's feature of token i."""
        tokens, slots = _shifted(prompts.tokens, prompts.slots, prompts.lengths, first, first_slot)
        self._memory.lengths.zero_()
        self._memory.kept.count.zero_()
        self._read(DraftInputs(features, tokens, slots, prompts.lengths), prompts.layout())

    def root_logits(self) -> Tensor:
        """Read what the target kept, and look one token ahead; see `DraftSteps`."""
        with Phase.DRAFT_PASSES.named():
            self._read(self._memory.kept)
            logits, self._parent_read = self._fusion.look(self._memory.root)
        self._parent_mask, self._rows_used = None, 0
        return logits[:, 0]

    def observe(self, observation: Observation) -> None:
        """Remember what the target kept."""
        self._operations.remember(observation, self._memory)

    def extend(self, tokens: Tensor, parents: Tensor, slots: Tensor, depth: int) -> Tensor:
        """Read the nodes of one depth; see `DraftSteps`."""
        with Phase.DRAFT_PASSES.named():
            return self._extend(tokens, parents, slots, depth)

    def _extend(self, tokens: Tensor, parents: Tensor, slots: Tensor, depth: int) -> Tensor:
        n_nodes, above, first = tokens.shape[1], self._parent_mask, self._rows_used
        hidden, self._parent_mask = self._fusion.extend(
            tokens, self._parent_read, slots, depth, parents, above, self._tree_rows, first
        )
        # Inputs are shifted by one: the root's own input was the last that was read, its children's come after it.
        depths = self._columns[depth - 1].expand(len(tokens), n_nodes)
        features, _ = self._layers(hidden, Placement(self._memory.lengths, depths, first, self._parent_mask))
        self._rows_used += n_nodes
        logits, self._parent_read = self._fusion.look(features)
        return logits

    def _read(self, seen: DraftInputs, layout: VariableLengthLayout | None = None) -> None:
        hidden = self._fusion(seen.tokens, self._fusion.read(seen.features), seen.slots, 0)
        depths = self._columns[: seen.tokens.shape[1]].expand(len(seen.tokens), -1)
        output, _ = self._layers(hidden, Placement(self._memory.lengths, depths, layout=layout))
        self._operations.move_on(output, seen.count, self._memory)


def vocabulary_of(request: Request[Any]) -> SemanticIDVocabulary:
    """The semantic IDs that a request is for.

    Raises:
        InputError: it is no request for lists.
    """
    if not isinstance(request, ListRequest):
        raise InputError(f"a request for {type(request).__name__}: expected a ListRequest, for a draft of lists")
    return request.vocabulary


def _forward_of(network: FeatureDraftNetwork) -> LayerForward:
    def forward(
        hidden: Tensor, positions: Tensor, mask: Tensor, cache: PreallocatedCache, all_states: bool
    ) -> Sequence[Tensor]:
        return hidden, network.attend(hidden, positions, mask, cache)

    return forward


@compiled
def _shifted(
    tokens: Tensor, slots: Tensor, lengths: Tensor, first: Tensor, first_slot: Tensor
) -> tuple[Tensor, Tensor]:
    """Tokens and slots `[B, P]` of prompts moved one to the left, the first ones of the lists behind them."""
    last = lengths[:, None] - 1
    return (
        tokens.roll(-1, 1).scatter(1, last, first[:, None]),
        slots.roll(-1, 1).scatter(1, last, first_slot[:, None]),
    )
