"""From item embeddings to semantic IDs."""

from padrec.catalog.quantizers.codebook_file import read_codebooks, write_codebooks
from padrec.catalog.quantizers.collisions import add_disambiguation_slot, count_collisions, reassign_collisions
from padrec.catalog.quantizers.k_means import KMeans
from padrec.catalog.quantizers.quantizer import Quantizer
from padrec.catalog.quantizers.residual_k_means import ResidualKMeans
from padrec.catalog.quantizers.rq_vae import RQVAE, RQVAEOutput
from padrec.catalog.quantizers.separation import separation_loss
from padrec.catalog.quantizers.sinkhorn import sinkhorn

__all__ = [
    "RQVAE",
    "KMeans",
    "Quantizer",
    "RQVAEOutput",
    "ResidualKMeans",
    "add_disambiguation_slot",
    "count_collisions",
    "read_codebooks",
    "reassign_collisions",
    "separation_loss",
    "sinkhorn",
    "write_codebooks",
]
