"""Embeddings in fewer dimensions."""

import torch

from padrec.catalog.errors import InputError
from padrec.catalog.item_embeddings import EmbeddingSource, ItemEmbeddings

_BATCH_ITEMS = 16384


class PrincipalComponents(EmbeddingSource):
    """The first principal components of other embeddings (PCA).

    The fewer dimensions a vector has, the more a code takes off its error, so few components tell similar items apart
    with fewer slots. In return the IDs know nothing of the directions left out.

    Args:
        embeddings: what to project.
        dimension: components to keep.

    Raises:
        InputError: no components.
    """

    def __init__(self, embeddings: EmbeddingSource, dimension: int) -> None:
        if dimension < 1:
            raise InputError(f"{dimension} principal components, expected at least 1")
        self._embeddings = embeddings
        self._dimension = dimension

    def embed(self) -> ItemEmbeddings:
        """See `EmbeddingSource`.

        Raises:
            InputError: the embeddings have fewer dimensions than that.
        """
        found = self._embeddings.embed()
        if self._dimension > found.dimension:
            raise InputError(f"{found.source}: {found.dimension} dimensions, expected at least {self._dimension}")
        mean = found.vectors.mean(0, dtype=torch.float64)
        covariance = torch.zeros(found.dimension, found.dimension, dtype=torch.float64)
        for batch in found.vectors.split(_BATCH_ITEMS):
            centred = batch - mean
            covariance += centred.T @ centred
        axes = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, : self._dimension]  # [d, kept], largest first
        # The sign of an eigenvector is arbitrary: its largest entry is made positive.
        axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
        projected = torch.cat([((batch - mean) @ axes).float() for batch in found.vectors.split(_BATCH_ITEMS)])
        return ItemEmbeddings(found.keys, projected, found.texts, found.source)
