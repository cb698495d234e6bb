"""Drafts, their training modules and objectives."""

from typing import TYPE_CHECKING

from padrec.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from padrec.drafts.assistant_model import AssistantModel as AssistantModel
    from padrec.drafts.context_alignment import StepCache as StepCache
    from padrec.drafts.context_alignment import Window as Window
    from padrec.drafts.context_alignment import step_mask as step_mask
    from padrec.drafts.context_alignment import unroll as unroll
    from padrec.drafts.draft_checkpoint import DraftCheckpoint as DraftCheckpoint
    from padrec.drafts.draft_weights import DraftWeights as DraftWeights
    from padrec.drafts.feature_draft import FeatureDraft as FeatureDraft
    from padrec.drafts.feature_draft_network import FeatureDraftNetwork as FeatureDraftNetwork
    from padrec.drafts.folded_fusion import FoldedFusion as FoldedFusion
    from padrec.drafts.folded_fusion import TrackedFusion as TrackedFusion
    from padrec.drafts.folded_fusion import fusion_for as fusion_for
    from padrec.drafts.network_draft import NetworkDraft as NetworkDraft
    from padrec.drafts.objective import DraftObjective as DraftObjective
    from padrec.drafts.objective import agreement_by_slot as agreement_by_slot
    from padrec.drafts.padrec import PADRecDraft as PADRecDraft
    from padrec.drafts.position_aware import PositionAwareEmbedding as PositionAwareEmbedding
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
