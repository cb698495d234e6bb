"""Drafts, their training modules and objectives."""

from typing import TYPE_CHECKING

from padrec.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from padrec.drafts.assistant_model import AssistantModel as AssistantModel
    from padrec.drafts.atspeed import TVDKD as TVDKD
    from padrec.drafts.atspeed import AdaptiveAcceptance as AdaptiveAcceptance
    from padrec.drafts.atspeed import AtSpeedBeamDraft as AtSpeedBeamDraft
    from padrec.drafts.atspeed import AtSpeedDraft as AtSpeedDraft
    from padrec.drafts.atspeed import DistillationObjective as DistillationObjective
    from padrec.drafts.atspeed import LogAcceptance as LogAcceptance
    from padrec.drafts.atspeed import SeqKD as SeqKD
    from padrec.drafts.atspeed import TopKAlignment as TopKAlignment
    from padrec.drafts.atspeed import TotalVariation as TotalVariation
    from padrec.drafts.atspeed import WordKD as WordKD
    from padrec.drafts.context_alignment import StepCache as StepCache
    from padrec.drafts.context_alignment import Window as Window
    from padrec.drafts.context_alignment import step_mask as step_mask
    from padrec.drafts.context_alignment import unroll as unroll
    from padrec.drafts.draft_architecture import EAGLE as EAGLE
    from padrec.drafts.draft_architecture import DraftArchitecture as DraftArchitecture
    from padrec.drafts.draft_architecture import ItemEAGLE as ItemEAGLE
    from padrec.drafts.draft_checkpoint import DraftCheckpoint as DraftCheckpoint
    from padrec.drafts.draft_checkpoint import DraftWeights as DraftWeights
    from padrec.drafts.eagle3 import EAGLE3 as EAGLE3
    from padrec.drafts.eagle3 import EAGLE3Network as EAGLE3Network
    from padrec.drafts.feature_beam_draft import FeatureBeamDraft as FeatureBeamDraft
    from padrec.drafts.feature_beam_draft import NetworkBeamDraft as NetworkBeamDraft
    from padrec.drafts.feature_draft import FeatureDraft as FeatureDraft
    from padrec.drafts.feature_draft import NetworkDraft as NetworkDraft
    from padrec.drafts.feature_draft_network import FeatureDraftNetwork as FeatureDraftNetwork
    from padrec.drafts.folded_fusion import FoldedFusion as FoldedFusion
    from padrec.drafts.item_draft import ItemDraft as ItemDraft
    from padrec.drafts.item_draft_network import ItemDraftNetwork as ItemDraftNetwork
    from padrec.drafts.item_draft_network import unroll_items as unroll_items
    from padrec.drafts.objective import DraftObjective as DraftObjective
    from padrec.drafts.objective import agreement_by_slot as agreement_by_slot
    from padrec.drafts.padrec_draft import PADRecDraft as PADRecDraft
    from padrec.drafts.position_aware import PositionAware as PositionAware
    from padrec.drafts.position_aware import PositionAwareEmbedding as PositionAwareEmbedding
    from padrec.drafts.retrieval import CombinedDraft as CombinedDraft
    from padrec.drafts.retrieval import RetrievalDraft as RetrievalDraft
    from padrec.drafts.retrieval import RetrievalTree as RetrievalTree
    from padrec.drafts.retrieval import TokenPool as TokenPool
    from padrec.drafts.sequential_heads import SequentialHeads as SequentialHeads
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
