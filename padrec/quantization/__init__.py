"""From a catalog's texts and interactions to semantic IDs of your own."""

from padrec.quantization.behaviour_embeddings import BehaviourEmbeddings
from padrec.quantization.codebooks import read_codebooks, write_codebooks
from padrec.quantization.collisions import add_disambiguation_slot, count_collisions, reassign_collisions
from padrec.quantization.derived_embeddings import ConcatenatedEmbeddings, PrincipalComponents
from padrec.quantization.embedding_datamodule import ItemEmbeddingDataModule, ItemVectors
from padrec.quantization.item_embeddings import EmbeddingFile, EmbeddingSource, ItemEmbeddings
from padrec.quantization.item_texts import ItemJSON, ItemTexts, PreparedTexts, TextReader
from padrec.quantization.k_means import KMeans
from padrec.quantization.quantizer import Quantizer
from padrec.quantization.residual_k_means import ResidualKMeans
from padrec.quantization.residual_k_means_quantizer import ResidualKMeansQuantizer
from padrec.quantization.rq_vae import RQVAE, RQVAEOutput, separation_loss
from padrec.quantization.rq_vae_quantizer import RQVAEQuantizer
from padrec.quantization.semantic_id_writer import SemanticIDWriter
from padrec.quantization.sinkhorn import sinkhorn
from padrec.quantization.target_embeddings import TargetEmbeddings
from padrec.quantization.text_embeddings import TextEmbeddings

__all__ = [
    "RQVAE",
    "BehaviourEmbeddings",
    "ConcatenatedEmbeddings",
    "EmbeddingFile",
    "EmbeddingSource",
    "ItemEmbeddingDataModule",
    "ItemEmbeddings",
    "ItemJSON",
    "ItemTexts",
    "ItemVectors",
    "KMeans",
    "PreparedTexts",
    "PrincipalComponents",
    "Quantizer",
    "RQVAEOutput",
    "RQVAEQuantizer",
    "ResidualKMeans",
    "ResidualKMeansQuantizer",
    "SemanticIDWriter",
    "TargetEmbeddings",
    "TextEmbeddings",
    "TextReader",
    "add_disambiguation_slot",
    "count_collisions",
    "read_codebooks",
    "reassign_collisions",
    "separation_loss",
    "sinkhorn",
    "write_codebooks",
]
