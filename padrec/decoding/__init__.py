"""Decoders, token trees, tree expansion, verification, the catalog constraint and the KV cache."""

from padrec.decoding.baselines.transformers_beam import TransformersBeamDecoder
from padrec.decoding.baselines.transformers_decoder import Assistant, TransformersDecoder
from padrec.decoding.beam.beam_decoder import BeamDecoder
from padrec.decoding.decoders.adaptive import AdaptiveDecoder
from padrec.decoding.decoders.autoregressive import AutoregressiveDecoder
from padrec.decoding.decoders.batchwise import BatchwiseDecoder
from padrec.decoding.decoders.decoder import LIST_SEARCH, Decoder
from padrec.decoding.decoders.fastest import FastestDecoder
from padrec.decoding.decoders.repeated import RepeatedDecoder
from padrec.decoding.decoders.speculative import SpeculativeDecoder
from padrec.decoding.device.captured_graph import CapturedGraph
from padrec.decoding.device.compiled import compiled
from padrec.decoding.device.phase import Phase
from padrec.decoding.device.stopwatch import Stopwatch
from padrec.decoding.layers.branches import Branches
from padrec.decoding.layers.cached_layers import CachedLayers, LayerSession, can_fuse
from padrec.decoding.layers.fused_layers import FusedLayers
from padrec.decoding.layers.kv_cache import PreallocatedCache, additive_mask
from padrec.decoding.layers.layer_operations import LayerOperations
from padrec.decoding.layers.placement import Placement
from padrec.decoding.layers.prompts import Prompts
from padrec.decoding.layers.runner import TargetRunner, TargetSession, TransformersRunner
from padrec.decoding.layers.supported_models import check_logits
from padrec.decoding.layers.transformers_layers import TransformersLayers
from padrec.decoding.layers.variable_length_layout import VariableLengthLayout
from padrec.decoding.lists.catalog_constraint import CatalogConstraint, CatalogState
from padrec.decoding.lists.constraint import Constraint, Continuations, FreeDecoding
from padrec.decoding.lists.decoding_trace import DecodingTrace, RoundStatistics
from padrec.decoding.lists.list_state import ListState, concatenate
from padrec.decoding.lists.request import GeneratedText, ListRequest, Recommendations, Request, TextRequest
from padrec.decoding.lists.sampling import Choice, Sampling, gumbel_noise, masked_log_softmax
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.lists.verification import (
    AcceptedPath,
    ChosenTokens,
    ExactVerification,
    VerificationRule,
    accept,
    choose,
)
from padrec.decoding.rounds.decoding_session import DecodingSession
from padrec.decoding.rounds.list_buffer import ListBuffer
from padrec.decoding.rounds.session import Rounds
from padrec.decoding.trees.draft import CatalogDraft, Draft, DraftPlan, DraftSession, HostDraftSession, Observation
from padrec.decoding.trees.dynamic_tree import Chain, DynamicTree
from padrec.decoding.trees.static_tree import StaticTree
from padrec.decoding.trees.tree_expansion import DraftSteps, RootOnly, TreeExpansion
from padrec.decoding.trees.tree_operations import ForcedRuns, TreeOperations

__all__ = [
    "LIST_SEARCH",
    "AcceptedPath",
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
    "ExactVerification",
    "FastestDecoder",
    "ForcedRuns",
    "FreeDecoding",
    "FusedLayers",
    "GeneratedText",
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
    "SpeculativeDecoder",
    "StaticTree",
    "Stopwatch",
    "TargetRunner",
    "TargetSession",
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
    "accept",
    "additive_mask",
    "can_fuse",
    "check_logits",
    "choose",
    "compiled",
    "concatenate",
    "gumbel_noise",
    "masked_log_softmax",
]
