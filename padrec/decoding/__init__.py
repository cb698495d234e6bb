"""Decoders, token trees, tree expansion, verification, the catalog constraint and the KV cache."""

from padrec.decoding.autoregressive import AutoregressiveDecoder
from padrec.decoding.batchwise import BatchwiseDecoder
from padrec.decoding.beam import BeamDecoder
from padrec.decoding.cached_layers import CachedLayers, FusedLayers, TransformersLayers, can_fuse
from padrec.decoding.catalog_draft import CatalogDraft
from padrec.decoding.chain import Chain
from padrec.decoding.compiled import compiled
from padrec.decoding.constraint import (
    CatalogConstraint,
    CatalogState,
    Constraint,
    Continuations,
    FreeDecoding,
    ListState,
    concatenate,
)
from padrec.decoding.decoder import LIST_SEARCH, Decoder, ListBuffer, ListRequest, Stopwatch
from padrec.decoding.draft import Draft, DraftContext, DraftSteps, Observation, TreeExpansion
from padrec.decoding.dynamic_tree import DynamicTree
from padrec.decoding.fastest import AdaptiveDecoder, FastestDecoder
from padrec.decoding.forced import ForcedRuns, RootOnly
from padrec.decoding.kv_cache import PreallocatedCache, additive_mask
from padrec.decoding.layer_operations import Placement
from padrec.decoding.packing import Packing
from padrec.decoding.phase import Phase
from padrec.decoding.recommendations import DecodingTrace, Recommendations, RoundStatistics
from padrec.decoding.recording import Recording
from padrec.decoding.repeated import RepeatedDecoder
from padrec.decoding.row_copy import RowCopy
from padrec.decoding.runner import Branches, Prompts, TargetRunner, TransformersRunner
from padrec.decoding.sampling import Choice, Sampling, gumbel_noise, masked_log_softmax
from padrec.decoding.session import Rounds
from padrec.decoding.speculative import SpeculativeDecoder
from padrec.decoding.static_tree import StaticTree
from padrec.decoding.supported_models import check_logits
from padrec.decoding.token_tree import TokenTree
from padrec.decoding.transformers_beam import TransformersBeamDecoder
from padrec.decoding.transformers_decoder import Assistant, TransformersDecoder
from padrec.decoding.verification import Acceptance, verify

__all__ = [
    "LIST_SEARCH",
    "Acceptance",
    "AdaptiveDecoder",
    "Assistant",
    "AutoregressiveDecoder",
    "BatchwiseDecoder",
    "BeamDecoder",
    "Branches",
    "CachedLayers",
    "CatalogConstraint",
    "CatalogDraft",
    "CatalogState",
    "Chain",
    "Choice",
    "Constraint",
    "Continuations",
    "Decoder",
    "DecodingTrace",
    "Draft",
    "DraftContext",
    "DraftSteps",
    "DynamicTree",
    "FastestDecoder",
    "ForcedRuns",
    "FreeDecoding",
    "FusedLayers",
    "ListBuffer",
    "ListRequest",
    "ListState",
    "Observation",
    "Packing",
    "Phase",
    "Placement",
    "PreallocatedCache",
    "Prompts",
    "Recommendations",
    "Recording",
    "RepeatedDecoder",
    "RootOnly",
    "RoundStatistics",
    "Rounds",
    "RowCopy",
    "Sampling",
    "SpeculativeDecoder",
    "StaticTree",
    "Stopwatch",
    "TargetRunner",
    "TokenTree",
    "TransformersBeamDecoder",
    "TransformersDecoder",
    "TransformersLayers",
    "TransformersRunner",
    "TreeExpansion",
    "additive_mask",
    "can_fuse",
    "check_logits",
    "compiled",
    "concatenate",
    "gumbel_noise",
    "masked_log_softmax",
    "verify",
]
