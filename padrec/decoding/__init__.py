"""Decoders, token trees, tree expansion, verification, the catalog constraint and the KV cache."""

from padrec.decoding.baselines.transformers_beam import TransformersBeamDecoder
from padrec.decoding.baselines.transformers_decoder import Assistant, TransformersDecoder
from padrec.decoding.beam.beam_decoder import BeamDecoder
from padrec.decoding.decoders.adaptive import AdaptiveDecoder
from padrec.decoding.decoders.decoder import LIST_SEARCH, Decoder
from padrec.decoding.decoders.fastest import FastestDecoder
from padrec.decoding.decoders.speculative import AutoregressiveDecoder, SpeculativeDecoder
from padrec.decoding.decoders.wrapping import BatchwiseDecoder, RepeatedDecoder
from padrec.decoding.device.captured_graph import CapturedGraph
from padrec.decoding.device.compiled import compiled
from padrec.decoding.device.stopwatch import Phase, Stopwatch
from padrec.decoding.layers.cached_layers import CachedLayers, LayerSession
from padrec.decoding.layers.fused_layers import FusedLayers, can_fuse
from padrec.decoding.layers.layer_operations import LayerOperations
from padrec.decoding.layers.placement import Placement, VariableLengthLayout
from padrec.decoding.layers.prompts import Branches, Prompts
from padrec.decoding.layers.runner import TransformersRunner, check_logits
from padrec.decoding.layers.transformers_layers import PreallocatedCache, TransformersLayers, additive_mask
from padrec.decoding.lists.catalog_constraint import CatalogConstraint, CatalogState
from padrec.decoding.lists.constraint import Constraint, Continuations, FreeDecoding
from padrec.decoding.lists.decoding_trace import DecodingTrace, RoundStatistics
from padrec.decoding.lists.list_state import ListState, concatenate
from padrec.decoding.lists.request import ListRequest, Recommendations, Request, TextRequest
from padrec.decoding.lists.sampling import Choice, Sampling, gumbel_noise, masked_log_softmax
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.lists.verification import ChosenTokens, VerificationRule, choose
from padrec.decoding.rounds.decoding_session import DecodingSession
from padrec.decoding.rounds.list_buffer import ListBuffer
from padrec.decoding.rounds.rounds import Rounds
from padrec.decoding.trees.draft import (
    CatalogDraft,
    Draft,
    DraftPlan,
    DraftSession,
    HostDraftSession,
    Observation,
    SessionOpener,
)
from padrec.decoding.trees.dynamic_tree import Chain, DynamicTree
from padrec.decoding.trees.static_tree import StaticTree
from padrec.decoding.trees.tree_expansion import DraftSteps, RootOnly, TreeExpansion
from padrec.decoding.trees.tree_operations import ForcedRuns, TreeOperations

__all__ = [
    "LIST_SEARCH",
    "AdaptiveDecoder",
    "Assistant",
    "AutoregressiveDecoder",
    "BatchwiseDecoder",
    "BeamDecoder",
    "Branches",
    "CachedLayers",
    "CapturedGraph",
    "CatalogConstraint",
    "CatalogDraft",
    "CatalogState",
    "Chain",
    "Choice",
    "ChosenTokens",
    "Constraint",
    "Continuations",
    "Decoder",
    "DecodingSession",
    "DecodingTrace",
    "Draft",
    "DraftPlan",
    "DraftSession",
    "DraftSteps",
    "DynamicTree",
    "FastestDecoder",
    "ForcedRuns",
    "FreeDecoding",
    "FusedLayers",
    "HostDraftSession",
    "LayerOperations",
    "LayerSession",
    "ListBuffer",
    "ListRequest",
    "ListState",
    "Observation",
    "Phase",
    "Placement",
    "PreallocatedCache",
    "Prompts",
    "Recommendations",
    "RepeatedDecoder",
    "Request",
    "RootOnly",
    "RoundStatistics",
    "Rounds",
    "Sampling",
    "SessionOpener",
    "SpeculativeDecoder",
    "StaticTree",
    "Stopwatch",
    "TextRequest",
    "TokenTree",
    "TransformersBeamDecoder",
    "TransformersDecoder",
    "TransformersLayers",
    "TransformersRunner",
    "TreeExpansion",
    "TreeOperations",
    "VariableLengthLayout",
    "VerificationRule",
    "additive_mask",
    "can_fuse",
    "check_logits",
    "choose",
    "compiled",
    "concatenate",
    "gumbel_noise",
    "masked_log_softmax",
]
