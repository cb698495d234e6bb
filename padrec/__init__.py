"""Speculative decoding for generative recommendation, as a PyTorch Lightning module collection."""

from padrec.catalog import (
    Catalog,
    CatalogTrie,
    ConcatenatedEmbeddings,
    EmbeddingFile,
    InputError,
    ItemEmbeddings,
    PrincipalComponents,
    SemanticIDVocabulary,
)
from padrec.data import AtSpeedReader, LCRecReader, SemanticIDDataModule, SyntheticReader
from padrec.decoding import (
    AutoregressiveDecoder,
    Chain,
    DynamicTree,
    ListRequest,
    Prompts,
    Recommendations,
    Sampling,
    SpeculativeDecoder,
    StaticTree,
    TransformersDecoder,
    TransformersRunner,
)
from padrec.drafts import FeatureDraft, PADRecDraft
from padrec.evaluation import RecommendationWriter, SpeculativeEvaluator
from padrec.quantization import (
    BehaviourEmbeddings,
    ItemEmbeddingDataModule,
    ItemJSON,
    ResidualKMeansQuantizer,
    RQVAEQuantizer,
    SemanticIDWriter,
    TextEmbeddings,
)
from padrec.targets import TargetRecommender

__all__ = [
    "AtSpeedReader",
    "AutoregressiveDecoder",
    "BehaviourEmbeddings",
    "Catalog",
    "CatalogTrie",
    "Chain",
    "ConcatenatedEmbeddings",
    "DynamicTree",
    "EmbeddingFile",
    "FeatureDraft",
    "InputError",
    "ItemEmbeddingDataModule",
    "ItemEmbeddings",
    "ItemJSON",
    "LCRecReader",
    "ListRequest",
    "PADRecDraft",
    "PrincipalComponents",
    "Prompts",
    "RQVAEQuantizer",
    "RecommendationWriter",
    "Recommendations",
    "ResidualKMeansQuantizer",
    "Sampling",
    "SemanticIDDataModule",
    "SemanticIDVocabulary",
    "SemanticIDWriter",
    "SpeculativeDecoder",
    "SpeculativeEvaluator",
    "StaticTree",
    "SyntheticReader",
    "TargetRecommender",
    "TextEmbeddings",
    "TransformersDecoder",
    "TransformersRunner",
]
