"""A draft with one pass an item at work on batches of one shape."""

from torch import Tensor

from padrec.decoding.device.stopwatch import Phase
from padrec.decoding.layers.cached_layers import CachedLayers
from padrec.decoding.trees.draft import DraftPlan
from padrec.decoding.trees.tree_expansion import ItemDraftSteps
from padrec.drafts.draft_operations import HeadStates, TreeLevel
from padrec.drafts.folded_item_fusion import FoldedItemFusion
from padrec.drafts.network_draft_session import NetworkDraftSession


class ItemDraftSession(NetworkDraftSession, ItemDraftSteps):
    """A `NetworkDraft` with heads, for `ItemTree`; other trees read every node, which it has not learnt.

    Args:
        fusion: computes the layers' inputs, the heads and the logits.
        layers: see `NetworkDraftSession`.
        plan: see `NetworkDraftSession`.
    """

    _fusion: FoldedItemFusion

    def __init__(self, fusion: FoldedItemFusion, layers: CachedLayers, plan: DraftPlan) -> None:
        super().__init__(fusion, layers, plan)
        self._n_passes = 0  # of this round
        self._states: HeadStates  # of the level read last

    def root_logits(self) -> Tensor:
        """See `DraftSteps`."""
        with Phase.DRAFT_PASSES.named():
            self._read(self._memory.kept)
            self._visible, self._n_read, self._n_passes = None, 0, 0
            return self._look_ahead(self._memory.root)[:, 0]

    def follow(self, tokens: Tensor, parents: Tensor, slots: Tensor) -> Tensor:
        """See `ItemDraftSteps`."""
        with Phase.DRAFT_PASSES.named():
            logits, self._states = self._fusion.follow(tokens, parents, slots, self._states)
        return logits

    def read_firsts(self, tokens: Tensor, parents: Tensor, slots: Tensor, places: Tensor) -> Tensor:
        """See `ItemDraftSteps`."""
        with Phase.DRAFT_PASSES.named():
            mapped, above = self._fusion.carry(parents, self._states, self._mapped, self._visible)
            itself = self._nodes[: tokens.shape[1]].expand(tokens.shape)
            level = TreeLevel(itself, above, self._nodes, self._n_read)
            return self._look_ahead(self._pass(tokens, mapped, slots, self._n_passes, level, places))

    def _look_ahead(self, features: Tensor) -> Tensor:
        """Logits `[B, k, V]` after passes with these outputs `[B, k, d]`."""
        logits, self._mapped, self._states = self._fusion.look_ahead(features)
        self._n_passes += 1
        return logits
