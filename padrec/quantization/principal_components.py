"""Embeddings in fewer dimensions."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from padrec.catalog import InputError
from padrec.quantization.item_embeddings import EmbeddingSource, ItemEmbeddings

_BATCH_ITEMS = 16384


class PrincipalComponents(EmbeddingSource):
    """The first principal components of other embeddings (PCA).

    The fewer dimensions a vector has, the more a code takes off its error, so few components tell similar items apart
    with fewer slots. In return the IDs know nothing of the directions left out.

    Args:
        embeddings: what to project.
        dimension: components to keep.
        file: safetensors file that keeps the components: where it is there, they are read from it, else they are found
            and written to it. Later items must be projected as the first ones were. None finds them anew every time.

    Raises:
        InputError: no components.
    """

    def __init__(self, embeddings: EmbeddingSource, dimension: int, file: str | None = None) -> None:
        if dimension < 1:
            raise InputError(f"{dimension} principal components, expected at least 1")
        self._embeddings = embeddings
        self._dimension = dimension
        self._file = None if file is None else Path(file)

    def embed(self) -> ItemEmbeddings:
        """See `EmbeddingSource`.

        Raises:
            InputError: the embeddings have fewer dimensions than that, or the file holds components of others.
        """
        found = self._embeddings.embed()
        if self._dimension > found.dimension:
            raise InputError(f"{found.source}: {found.dimension} dimensions, expected at least {self._dimension}")
        if self._file is not None and self._file.exists():
            mean, axes = _read(self._file, (found.dimension, self._dimension), found.source)
        else:
            mean, axes = _components(found.vectors, self._dimension)
            if self._file is not None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                save_file({"mean": mean, "axes": axes.contiguous()}, self._file)
        projected = torch.cat([((batch - mean) @ axes).float() for batch in found.vectors.split(_BATCH_ITEMS)])
        return ItemEmbeddings(found.keys, projected, found.texts, found.source)


def _components(vectors: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean float64 `[d]` and the first principal axes float64 `[d, count]` of vectors."""
    mean = vectors.mean(0, dtype=torch.float64)
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for batch in vectors.split(_BATCH_ITEMS):
        centred = batch - mean
        covariance += centred.T @ centred
    axes = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :count]  # largest first
    # The sign of an eigenvector is arbitrary: its largest entry is made positive.
    return mean, axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()


def _read(file: Path, shape: tuple[int, int], source: str) -> tuple[Tensor, Tensor]:
    try:
        tensors = load_file(file)
        mean, axes = tensors["mean"], tensors["axes"]
    except (SafetensorError, KeyError) as error:
        raise InputError(f"{file}: expected safetensors with the tensors mean and axes ({error})") from None
    if axes.shape != shape or mean.shape != shape[:1]:
        raise InputError(
            f"{file}: {axes.shape[-1]} components of {len(axes)} dimensions, expected {shape[1]} of the {shape[0]} "
            f"dimensions of {source}"
        )
    return mean, axes
