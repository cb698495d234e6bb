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
        self._n_passes, self._n_followed = 0, 0  # of this round, and levels since the last pass
        self._states: HeadStates
        self._base: Tensor  # see `FoldedItemFusion.base`

    def root_logits(self) -> Tensor:
        """See `DraftSteps`."""
        logits = super().root_logits()
        self._n_passes = 0
        self._follow_pass(logits[:, None], self._memory.root, self._mapped)
        return logits

    def follow(self, tokens: Tensor, parents: Tensor, stays: Tensor | None) -> Tensor:
        """See `ItemDraftSteps`."""
        with Phase.DRAFT_PASSES.named():
            logits, self._states = self._fusion.follow(
                tokens, parents, stays, self._states, self._n_followed, self._base
            )
        self._n_followed += 1
        return logits

    def read_firsts(self, tokens: Tensor, parents: Tensor, slots: Tensor, places: Tensor) -> Tensor:
        """See `ItemDraftSteps`."""
        with Phase.DRAFT_PASSES.named():
            mapped, above = self._fusion.carry(parents, self._states, self._mapped, self._visible)
            itself = self._nodes[: tokens.shape[1]].expand(tokens.shape)
            level = TreeLevel(itself, above, self._nodes, self._n_read)
            features = self._pass(tokens, mapped, slots, self._n_passes, level, places)
            logits, mapped = self._fusion.look(features)
        self._follow_pass(logits, features, mapped)
        return logits

    def _follow_pass(self, logits: Tensor, features: Tensor, mapped: Tensor) -> None:
        self._mapped, self._states = self._fusion.states(mapped)
        self._base, self._n_followed = self._fusion.base(logits, features), 0
        self._n_passes += 1
