"""Feature drafts at decoding time: from a trained network to token trees."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.decoding.layers.cached_layers import CachedLayers
from padrec.decoding.layers.fused_layers import FusedLayers, can_fuse
from padrec.decoding.layers.layer_operations import LayerOperations
from padrec.decoding.layers.runner import TransformersRunner
from padrec.decoding.layers.transformers_layers import PreallocatedCache, TransformersLayers
from padrec.decoding.lists.request import ListRequest, Request
from padrec.decoding.trees.draft import Draft, DraftPlan, SessionOpener
from padrec.drafts.draft_checkpoint import DraftCheckpoint
from padrec.drafts.draft_operations import draft_operations_for
from padrec.drafts.feature_draft_network import FeatureDraftNetwork
from padrec.drafts.folded_fusion import FoldedFusion
from padrec.drafts.folded_item_fusion import FoldedItemFusion
from padrec.drafts.item_draft_session import ItemDraftSession
from padrec.drafts.network_draft_session import NetworkDraftSession
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
        architecture = self._checkpoint.architecture
        self.feature_layers, self.item_length = architecture.feature_layers, architecture.item_length
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
        return NetworkDraft(self.network(runner), self._checkpoint.vocabulary)

    def network(self, runner: TransformersRunner) -> FeatureDraftNetwork:
        """A new network on the target's device and in its precision."""
        network = self._checkpoint.network(runner.model.config)
        to_precision(network, runner.model.dtype)
        return network.to(runner.model.device).eval().requires_grad_(False)

    def _check(self, runner: TransformersRunner, request: Request[Any]) -> None:
        vocabulary = self._checkpoint.vocabulary
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
        self.item_length = network.item_length

    def bind(self, runner: TransformersRunner, request: Request[Any]) -> Callable[[DraftPlan], "NetworkDraftSession"]:
        """Share the target's embedding and head; see `Draft.bind`."""
        fusion, layers = self.parts(runner)
        if isinstance(fusion, FoldedItemFusion):
            return partial(ItemDraftSession, fusion, layers)
        return partial(NetworkDraftSession, fusion, layers)

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
        fusion = FoldedFusion if network.heads is None else FoldedItemFusion
        return fusion(network, model, self.vocabulary, maps, operations, first), layers

    def _forward(
        self, hidden: Tensor, positions: Tensor, mask: Tensor, cache: PreallocatedCache, all_states: bool
    ) -> Sequence[Tensor]:
        return hidden, self.network.attend(hidden, positions, mask, cache)
