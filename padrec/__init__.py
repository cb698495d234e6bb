"""Speculative decoding for generative recommendation, as a PyTorch Lightning module collection."""

from padrec.catalog import Catalog, CatalogTrie, InputError, SemanticIDVocabulary
from padrec.data import AtSpeedReader, LCRecReader, SemanticIDDataModule, SyntheticReader
from padrec.decoding import (
    AutoregressiveDecoder,
    Chain,
    DynamicTree,
    ForcedDraft,
    ListRequest,
    Prompts,
    Recommendations,
    RootOnly,
    Sampling,
    SpeculativeDecoder,
    StaticTree,
    TransformersDecoder,
    TransformersRunner,
)
from padrec.drafts import FeatureDraft, PADRecDraft
from padrec.evaluation import RecommendationWriter, SpeculativeEvaluator
from padrec.targets import TargetRecommender

__all__ = [
    "AtSpeedReader",
    "AutoregressiveDecoder",
    "Catalog",
    "CatalogTrie",
    "Chain",
    "DynamicTree",
    "FeatureDraft",
    "ForcedDraft",
    "InputError",
    "LCRecReader",
    "ListRequest",
    "PADRecDraft",
    "Prompts",
    "RecommendationWriter",
    "Recommendations",
    "RootOnly",
    "Sampling",
    "SemanticIDDataModule",
    "SemanticIDVocabulary",
    "SpeculativeDecoder",
    "SpeculativeEvaluator",
    "StaticTree",
    "SyntheticReader",
    "TargetRecommender",
    "TransformersDecoder",
    "TransformersRunner",
]
