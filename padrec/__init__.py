"""Speculative decoding for generative recommendation, as a PyTorch Lightning module collection."""

from typing import TYPE_CHECKING

from padrec.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from padrec.catalog import Catalog as Catalog
    from padrec.catalog import CatalogTrie as CatalogTrie
    from padrec.catalog import InputError as InputError
    from padrec.catalog import SemanticIDVocabulary as SemanticIDVocabulary
    from padrec.data import AmazonReviews2014 as AmazonReviews2014
    from padrec.data import AmazonReviews2018 as AmazonReviews2018
    from padrec.data import AmazonReviews2023 as AmazonReviews2023
    from padrec.data import AtSpeedReader as AtSpeedReader
    from padrec.data import DuckDBEngine as DuckDBEngine
    from padrec.data import GeneratedLists as GeneratedLists
    from padrec.data import LCRecReader as LCRecReader
    from padrec.data import LeaveLastOut as LeaveLastOut
    from padrec.data import LoggedSequences as LoggedSequences
    from padrec.data import MiniOneRecReader as MiniOneRecReader
    from padrec.data import Preparation as Preparation
    from padrec.data import PreparedReader as PreparedReader
    from padrec.data import PromptTemplate as PromptTemplate
    from padrec.data import SemanticIDDataModule as SemanticIDDataModule
    from padrec.data import SparkEngine as SparkEngine
    from padrec.data import SyntheticReader as SyntheticReader
    from padrec.data import TableLog as TableLog
    from padrec.data import TimeSplit as TimeSplit
    from padrec.data import read_index as read_index
    from padrec.decoding import AdaptiveDecoder as AdaptiveDecoder
    from padrec.decoding import AutoregressiveDecoder as AutoregressiveDecoder
    from padrec.decoding import BatchwiseDecoder as BatchwiseDecoder
    from padrec.decoding import BeamDecoder as BeamDecoder
    from padrec.decoding import CatalogBeamDraft as CatalogBeamDraft
    from padrec.decoding import CatalogDraft as CatalogDraft
    from padrec.decoding import Chain as Chain
    from padrec.decoding import DynamicTree as DynamicTree
    from padrec.decoding import FastestDecoder as FastestDecoder
    from padrec.decoding import ListRequest as ListRequest
    from padrec.decoding import Prompts as Prompts
    from padrec.decoding import Recommendations as Recommendations
    from padrec.decoding import RelaxedBeamRule as RelaxedBeamRule
    from padrec.decoding import RepeatedDecoder as RepeatedDecoder
    from padrec.decoding import RootOnly as RootOnly
    from padrec.decoding import Sampling as Sampling
    from padrec.decoding import SpeculativeBeamDecoder as SpeculativeBeamDecoder
    from padrec.decoding import SpeculativeDecoder as SpeculativeDecoder
    from padrec.decoding import StaticTree as StaticTree
    from padrec.decoding import StrictBeamRule as StrictBeamRule
    from padrec.decoding import TransformersBeamDecoder as TransformersBeamDecoder
    from padrec.decoding import TransformersDecoder as TransformersDecoder
    from padrec.decoding import TransformersRunner as TransformersRunner
    from padrec.drafts import TVDKD as TVDKD
    from padrec.drafts import AssistantModel as AssistantModel
    from padrec.drafts import AtSpeedBeamDraft as AtSpeedBeamDraft
    from padrec.drafts import AtSpeedDraft as AtSpeedDraft
    from padrec.drafts import DraftWeights as DraftWeights
    from padrec.drafts import FeatureBeamDraft as FeatureBeamDraft
    from padrec.drafts import FeatureDraft as FeatureDraft
    from padrec.drafts import PADRecDraft as PADRecDraft
    from padrec.drafts import SeqKD as SeqKD
    from padrec.drafts import TopKAlignment as TopKAlignment
    from padrec.drafts import TotalVariation as TotalVariation
    from padrec.drafts import WordKD as WordKD
    from padrec.evaluation import RecommendationWriter as RecommendationWriter
    from padrec.evaluation import SpeculativeEvaluator as SpeculativeEvaluator
    from padrec.quantization import BehaviourEmbeddings as BehaviourEmbeddings
    from padrec.quantization import ConcatenatedEmbeddings as ConcatenatedEmbeddings
    from padrec.quantization import EmbeddingFile as EmbeddingFile
    from padrec.quantization import ItemEmbeddingDataModule as ItemEmbeddingDataModule
    from padrec.quantization import ItemEmbeddings as ItemEmbeddings
    from padrec.quantization import ItemJSON as ItemJSON
    from padrec.quantization import PreparedTexts as PreparedTexts
    from padrec.quantization import PrincipalComponents as PrincipalComponents
    from padrec.quantization import ResidualKMeansQuantizer as ResidualKMeansQuantizer
    from padrec.quantization import RQVAEQuantizer as RQVAEQuantizer
    from padrec.quantization import SemanticIDWriter as SemanticIDWriter
    from padrec.quantization import TargetEmbeddings as TargetEmbeddings
    from padrec.quantization import TextEmbeddings as TextEmbeddings
    from padrec.recommender import RecommendedItem as RecommendedItem
    from padrec.recommender import Recommender as Recommender
    from padrec.targets import PretrainedModel as PretrainedModel
    from padrec.targets import TargetRecommender as TargetRecommender
    from padrec.targets import TargetWeights as TargetWeights
    from padrec.version import __version__ as __version__
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
