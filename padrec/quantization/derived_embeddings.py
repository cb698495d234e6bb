"""Embeddings made of other embeddings: concatenated, or projected onto principal components."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from padrec.catalog import InputError, PositiveFloat, PositiveInt, check_arguments
from padrec.catalog.tensor_file import read_tensors, write_tensors
from padrec.quantization.item_embeddings import EmbeddingSource, ItemEmbeddings

_BATCH_ITEMS = 16384


@dataclass(frozen=True)
class ConcatenatedEmbeddings(EmbeddingSource):
    """Several embeddings of the same items side by side, each vector first scaled to length 1.

    Args:
        parts: the sources; the first one decides the order of the items.
        weights: length of each part's vectors; None is 1 for all.

    Raises:
        InputError: no parts, or weights that do not match them; from `embed`, parts of different items.
    """

    parts: list[EmbeddingSource]
    weights: list[PositiveFloat] | None = None

    def __post_init__(self) -> None:
        check_arguments(ConcatenatedEmbeddings, vars(self))
        if not self.parts or (self.weights is not None and len(self.weights) != len(self.parts)):
            raise InputError(f"{len(self.parts)} parts, weights {self.weights}: expected parts, one weight each")

    def embed(self) -> ItemEmbeddings:
        """See `EmbeddingSource`."""
        first, *others = parts = [part.embed() for part in self.parts]
        vectors = [first.vectors] + [_reordered(other, first) for other in others]
        weighted = [
            normalize(part) * weight for part, weight in zip(vectors, self.weights or [1.0] * len(parts), strict=True)
        ]
        sources = " + ".join(part.source for part in parts)
        return ItemEmbeddings(first.keys, torch.cat(weighted, dim=1), first.texts, sources)


@dataclass(frozen=True)
class PrincipalComponents(EmbeddingSource):
    """The first principal components of other embeddings (PCA).

    With few components, a code removes more of the error and fewer slots tell similar items apart; but the IDs ignore
    the discarded directions.

    Args:
        embeddings: embeddings to project.
        dimension: number of components to keep.
        file: safetensors file of the components, which later items need: read if it exists, else computed and written.
            None computes them every time.

    Raises:
        InputError: no components; from `embed`, too few dimensions, or a file with components of other embeddings.
    """

    embeddings: EmbeddingSource
    dimension: PositiveInt
    file: str | None = None

    def __post_init__(self) -> None:
        check_arguments(PrincipalComponents, vars(self))

    def embed(self) -> ItemEmbeddings:
        """See `EmbeddingSource`."""
        found = self.embeddings.embed()
        if self.dimension > found.dimension:
            raise InputError(f"{found.source}: {found.dimension} dimensions, expected at least {self.dimension}")
        file = None if self.file is None else Path(self.file)
        if file is not None and file.exists():
            mean, axes = _read_components(file, (found.dimension, self.dimension), found.source)
        else:
            mean, axes = _components(found.vectors, self.dimension)
            if file is not None:
                write_tensors(file, {"mean": mean, "axes": axes})
        projected = torch.cat([((batch - mean) @ axes).float() for batch in found.vectors.split(_BATCH_ITEMS)])
        return ItemEmbeddings(found.keys, projected, found.texts, found.source)


def _reordered(part: ItemEmbeddings, wanted: ItemEmbeddings) -> Tensor:
    row = {key: index for index, key in enumerate(part.keys)}
    if astray := row.keys() ^ set(wanted.keys):
        found = f"item {min(astray)!r} is in one of them only"
        raise InputError(f"{part.source} and {wanted.source}: {found}, expected the same items")
    return part.vectors[torch.tensor([row[key] for key in wanted.keys])]


def _components(vectors: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Mean `[d]` and first principal axes `[d, count]` of vectors, float64."""
    mean = vectors.mean(0, dtype=torch.float64)
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for batch in vectors.split(_BATCH_ITEMS):
        centred = batch - mean
        covariance += centred.T @ centred
    axes = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :count]  # largest first
    # The sign of an eigenvector is arbitrary: make its largest entry positive.
    return mean, axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()


def _read_components(file: Path, shape: tuple[int, int], source: str) -> tuple[Tensor, Tensor]:
    tensors = read_tensors(file).tensors
    if tensors.keys() != {"mean", "axes"}:
        raise InputError(f"{file}: expected safetensors with the tensors mean and axes, found {', '.join(tensors)}")
    mean, axes = tensors["mean"], tensors["axes"]
    if axes.shape != shape or mean.shape != shape[:1]:
        expected = f"{shape[1]} of the {shape[0]} dimensions of {source}"
        raise InputError(f"{file}: {axes.shape[-1]} components of {len(axes)} dimensions, expected {expected}")
    return mean, axes
