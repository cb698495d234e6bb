"""From a catalog's texts and interactions to semantic IDs of your own."""

from typing import TYPE_CHECKING

from padrec.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from padrec.quantization.behaviour_embeddings import BehaviourEmbeddings as BehaviourEmbeddings
    from padrec.quantization.collisions import add_disambiguation_slot as add_disambiguation_slot
    from padrec.quantization.collisions import count_collisions as count_collisions
    from padrec.quantization.collisions import reassign_collisions as reassign_collisions
    from padrec.quantization.derived_embeddings import ConcatenatedEmbeddings as ConcatenatedEmbeddings
    from padrec.quantization.derived_embeddings import PrincipalComponents as PrincipalComponents
    from padrec.quantization.embedding_datamodule import ItemEmbeddingDataModule as ItemEmbeddingDataModule
    from padrec.quantization.embedding_datamodule import ItemVectors as ItemVectors
    from padrec.quantization.item_embeddings import EmbeddingFile as EmbeddingFile
    from padrec.quantization.item_embeddings import EmbeddingSource as EmbeddingSource
    from padrec.quantization.item_embeddings import ItemEmbeddings as ItemEmbeddings
    from padrec.quantization.k_means import KMeans as KMeans
    from padrec.quantization.quantizer_module import ResidualKMeansQuantizer as ResidualKMeansQuantizer
    from padrec.quantization.residual_k_means import Quantizer as Quantizer
    from padrec.quantization.residual_k_means import ResidualKMeans as ResidualKMeans
    from padrec.quantization.residual_k_means import read_codebooks as read_codebooks
    from padrec.quantization.residual_k_means import write_codebooks as write_codebooks
    from padrec.quantization.rq_vae import RQVAE as RQVAE
    from padrec.quantization.rq_vae import RQVAEOutput as RQVAEOutput
    from padrec.quantization.rq_vae import separation_loss as separation_loss
    from padrec.quantization.rq_vae_quantizer import RQVAEQuantizer as RQVAEQuantizer
    from padrec.quantization.semantic_id_writer import SemanticIDWriter as SemanticIDWriter
    from padrec.quantization.target_embeddings import TargetEmbeddings as TargetEmbeddings
    from padrec.quantization.text_embeddings import TextEmbeddings as TextEmbeddings
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
