"""From a catalog's texts and interactions to semantic IDs of your own."""

from padrec.quantization.behaviour_embeddings import BehaviourEmbeddings
from padrec.quantization.embedding_datamodule import ItemEmbeddingDataModule, ItemVectors
from padrec.quantization.item_texts import ItemJSON, ItemTexts, TextReader
from padrec.quantization.prepared_texts import PreparedTexts
from padrec.quantization.residual_k_means import ResidualKMeansQuantizer
from padrec.quantization.rq_vae import RQVAEQuantizer
from padrec.quantization.semantic_id_writer import SemanticIDWriter
from padrec.quantization.target_embeddings import TargetEmbeddings
from padrec.quantization.text_embeddings import TextEmbeddings

__all__ = [
    "BehaviourEmbeddings",
    "ItemEmbeddingDataModule",
    "ItemJSON",
    "ItemTexts",
    "ItemVectors",
    "PreparedTexts",
    "RQVAEQuantizer",
    "ResidualKMeansQuantizer",
    "SemanticIDWriter",
    "TargetEmbeddings",
    "TextEmbeddings",
    "TextReader",
]
