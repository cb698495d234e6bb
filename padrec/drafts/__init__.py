"""Drafts, their training modules and objectives."""

from padrec.drafts.assistant_model import AssistantModel
from padrec.drafts.context_alignment import StepCache, Window, step_mask, unroll
from padrec.drafts.draft_checkpoint import DraftCheckpoint, DraftWeights
from padrec.drafts.feature_draft import FeatureDraft, NetworkDraft
from padrec.drafts.feature_draft_network import FeatureDraftNetwork, PositionAwareEmbedding
from padrec.drafts.folded_fusion import FoldedFusion
from padrec.drafts.objective import DraftObjective, agreement_by_slot
from padrec.drafts.padrec_draft import PADRecDraft

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
    "Window",
    "agreement_by_slot",
    "step_mask",
    "unroll",
]
