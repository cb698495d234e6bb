"""Drafts, their training modules and objectives."""

from padrec.drafts.assistant_model import AssistantModel
from padrec.drafts.context_alignment import StepCache, Window, step_mask, unroll
from padrec.drafts.draft_checkpoint import DraftCheckpoint
from padrec.drafts.draft_weights import DraftWeights
from padrec.drafts.feature_draft import FeatureDraft
from padrec.drafts.feature_draft_network import FeatureDraftNetwork
from padrec.drafts.folded_fusion import FoldedFusion, TrackedFusion, fusion_for
from padrec.drafts.network_draft import NetworkDraft
from padrec.drafts.objective import DraftObjective, agreement_by_slot
from padrec.drafts.padrec import PADRecDraft
from padrec.drafts.position_aware import PositionAwareEmbedding

__all__ = [
    "AssistantModel",
    "DraftCheckpoint",
    "DraftObjective",
    "DraftWeights",
    "FeatureDraft",
    "FeatureDraftNetwork",
    "FoldedFusion",
    "NetworkDraft",
    "PADRecDraft",
    "PositionAwareEmbedding",
    "StepCache",
    "TrackedFusion",
    "Window",
    "agreement_by_slot",
    "fusion_for",
    "step_mask",
    "unroll",
]
