"""Decoders, token trees, tree expansion, verification, the catalog constraint and the KV cache."""

from padrec.decoding.baselines.transformers_beam import TransformersBeamDecoder
from padrec.decoding.baselines.transformers_decoder import Assistant, TransformersDecoder
from padrec.decoding.beam.beam_decoder import BeamDecoder
from padrec.decoding.decoders.autoregressive import AutoregressiveDecoder
from padrec.decoding.decoders.batchwise import BatchwiseDecoder
from padrec.decoding.decoders.decoder import LIST_SEARCH, Decoder
from padrec.decoding.decoders.fastest import AdaptiveDecoder, FastestDecoder
from padrec.decoding.decoders.repeated import RepeatedDecoder
from padrec.decoding.decoders.speculative import SpeculativeDecoder
from padrec.decoding.device.compiled import compiled
from padrec.decoding.device.phase import Phase
from padrec.decoding.device.recording import Recording
from padrec.decoding.device.stopwatch import Stopwatch
from padrec.decoding.layers.cached_layers import CachedLayers, FusedLayers, TransformersLayers, can_fuse
from padrec.decoding.layers.kv_cache import PreallocatedCache, additive_mask
from padrec.decoding.layers.layer_operations import Placement
from padrec.decoding.layers.packing import Packing
from padrec.decoding.layers.runner import Branches, Prompts, TargetRunner, TransformersRunner
from padrec.decoding.layers.supported_models import check_logits
from padrec.decoding.lists.constraint import (
    CatalogConstraint,
    CatalogState,
    Constraint,
    Continuations,
    FreeDecoding,
    ListState,
    concatenate,
)
from padrec.decoding.lists.list_request import ListRequest
from padrec.decoding.lists.recommendations import DecodingTrace, Recommendations, RoundStatistics
from padrec.decoding.lists.sampling import Choice, Sampling, gumbel_noise, masked_log_softmax
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.lists.verification import Acceptance, verify
from padrec.decoding.rounds.list_buffer import ListBuffer
from padrec.decoding.rounds.session import Rounds
from padrec.decoding.trees.catalog_draft import CatalogDraft
from padrec.decoding.trees.chain import Chain
from padrec.decoding.trees.draft import Draft, DraftContext, DraftSteps, Observation, TreeExpansion
from padrec.decoding.trees.dynamic_tree import DynamicTree
from padrec.decoding.trees.forced import ForcedRuns, RootOnly
from padrec.decoding.trees.static_tree import StaticTree

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
