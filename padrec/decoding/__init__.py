"""Decoders, token trees, tree expansion, verification, the catalog constraint and the KV cache."""

from typing import TYPE_CHECKING

from padrec.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from padrec.decoding.baselines.transformers_beam import TransformersBeamDecoder as TransformersBeamDecoder
    from padrec.decoding.baselines.transformers_decoder import Assistant as Assistant
    from padrec.decoding.baselines.transformers_decoder import TransformersDecoder as TransformersDecoder
    from padrec.decoding.beam.beam_decoder import BeamDecoder as BeamDecoder
    from padrec.decoding.beam.beam_draft import BeamDraft as BeamDraft
    from padrec.decoding.beam.beam_draft import BeamDraftSession as BeamDraftSession
    from padrec.decoding.beam.beam_draft import CatalogBeamDraft as CatalogBeamDraft
    from padrec.decoding.beam.beam_draft import LanguageModelBeamDraft as LanguageModelBeamDraft
    from padrec.decoding.beam.beam_rule import BeamRule as BeamRule
    from padrec.decoding.beam.beam_rule import RelaxedBeamRule as RelaxedBeamRule
    from padrec.decoding.beam.beam_rule import StrictBeamRule as StrictBeamRule
    from padrec.decoding.beam.speculative_beam_decoder import SpeculativeBeamDecoder as SpeculativeBeamDecoder
    from padrec.decoding.decoders.adaptive import AdaptiveDecoder as AdaptiveDecoder
    from padrec.decoding.decoders.by_batch_size import BatchSizeDecoder as BatchSizeDecoder
    from padrec.decoding.decoders.decoder import LIST_SEARCH as LIST_SEARCH
    from padrec.decoding.decoders.decoder import Decoder as Decoder
    from padrec.decoding.decoders.fastest import FastestDecoder as FastestDecoder
    from padrec.decoding.decoders.speculative import AutoregressiveDecoder as AutoregressiveDecoder
    from padrec.decoding.decoders.speculative import SpeculativeDecoder as SpeculativeDecoder
    from padrec.decoding.decoders.wrapping import BatchwiseDecoder as BatchwiseDecoder
    from padrec.decoding.decoders.wrapping import RepeatedDecoder as RepeatedDecoder
    from padrec.decoding.device.captured_graph import CapturedGraph as CapturedGraph
    from padrec.decoding.device.compiled import compiled as compiled
    from padrec.decoding.device.stopwatch import Phase as Phase
    from padrec.decoding.device.stopwatch import Stopwatch as Stopwatch
    from padrec.decoding.layers.cached_layers import CachedLayers as CachedLayers
    from padrec.decoding.layers.cached_layers import LayerSession as LayerSession
    from padrec.decoding.layers.fused_layers import FusedLayers as FusedLayers
    from padrec.decoding.layers.fused_layers import can_fuse as can_fuse
    from padrec.decoding.layers.layer_operations import LayerOperations as LayerOperations
    from padrec.decoding.layers.model_check import check_model as check_model
    from padrec.decoding.layers.placement import Placement as Placement
    from padrec.decoding.layers.placement import VariableLengthLayout as VariableLengthLayout
    from padrec.decoding.layers.prompts import Branches as Branches
    from padrec.decoding.layers.prompts import Prompts as Prompts
    from padrec.decoding.layers.runner import TransformersRunner as TransformersRunner
    from padrec.decoding.layers.runner import check_length as check_length
    from padrec.decoding.layers.transformers_layers import PreallocatedCache as PreallocatedCache
    from padrec.decoding.layers.transformers_layers import TransformersLayers as TransformersLayers
    from padrec.decoding.layers.transformers_layers import additive_mask as additive_mask
    from padrec.decoding.lists.bounded_verification import BoundedVerification as BoundedVerification
    from padrec.decoding.lists.catalog_constraint import CatalogConstraint as CatalogConstraint
    from padrec.decoding.lists.catalog_constraint import CatalogState as CatalogState
    from padrec.decoding.lists.constraint import Constraint as Constraint
    from padrec.decoding.lists.constraint import Continuations as Continuations
    from padrec.decoding.lists.constraint import FreeDecoding as FreeDecoding
    from padrec.decoding.lists.decoding_trace import DecodingTrace as DecodingTrace
    from padrec.decoding.lists.decoding_trace import RoundStatistics as RoundStatistics
    from padrec.decoding.lists.excluded_leaves import LeafExclusion as LeafExclusion
    from padrec.decoding.lists.excluded_leaves import excluded_leaves as excluded_leaves
    from padrec.decoding.lists.excluded_leaves import history_leaves as history_leaves
    from padrec.decoding.lists.list_state import ListState as ListState
    from padrec.decoding.lists.list_state import concatenate as concatenate
    from padrec.decoding.lists.not_finite_error import NotFiniteError as NotFiniteError
    from padrec.decoding.lists.relaxed_verification import RelaxedVerification as RelaxedVerification
    from padrec.decoding.lists.request import GeneratedText as GeneratedText
    from padrec.decoding.lists.request import ListRequest as ListRequest
    from padrec.decoding.lists.request import Recommendations as Recommendations
    from padrec.decoding.lists.request import Request as Request
    from padrec.decoding.lists.request import TextRequest as TextRequest
    from padrec.decoding.lists.sampling import Choice as Choice
    from padrec.decoding.lists.sampling import Sampling as Sampling
    from padrec.decoding.lists.sampling import gumbel_noise as gumbel_noise
    from padrec.decoding.lists.sampling import masked_log_softmax as masked_log_softmax
    from padrec.decoding.lists.token_tree import TokenTree as TokenTree
    from padrec.decoding.lists.verification import ChosenTokens as ChosenTokens
    from padrec.decoding.lists.verification import ExactVerification as ExactVerification
    from padrec.decoding.lists.verification import VerificationRule as VerificationRule
    from padrec.decoding.lists.verification import choose as choose
    from padrec.decoding.rounds.decoding_session import DecodingSession as DecodingSession
    from padrec.decoding.rounds.list_buffer import ListBuffer as ListBuffer
    from padrec.decoding.rounds.rounds import Rounds as Rounds
    from padrec.decoding.trees.draft import CatalogDraft as CatalogDraft
    from padrec.decoding.trees.draft import Draft as Draft
    from padrec.decoding.trees.draft import DraftPlan as DraftPlan
    from padrec.decoding.trees.draft import DraftSession as DraftSession
    from padrec.decoding.trees.draft import HostDraftSession as HostDraftSession
    from padrec.decoding.trees.draft import Observation as Observation
    from padrec.decoding.trees.draft import OnlineDraftSession as OnlineDraftSession
    from padrec.decoding.trees.draft import SessionOpener as SessionOpener
    from padrec.decoding.trees.draft import SourcesDraftSession as SourcesDraftSession
    from padrec.decoding.trees.dynamic_tree import Chain as Chain
    from padrec.decoding.trees.dynamic_tree import DynamicTree as DynamicTree
    from padrec.decoding.trees.static_tree import StaticTree as StaticTree
    from padrec.decoding.trees.tree_expansion import DraftSteps as DraftSteps
    from padrec.decoding.trees.tree_expansion import RootOnly as RootOnly
    from padrec.decoding.trees.tree_expansion import TreeExpansion as TreeExpansion
    from padrec.decoding.trees.tree_operations import ForcedRuns as ForcedRuns
    from padrec.decoding.trees.tree_operations import TreeOperations as TreeOperations
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
