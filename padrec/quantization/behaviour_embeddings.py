"""Item embeddings from interactions, without texts."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from scipy.sparse.linalg import svds
from torch import Tensor

from padrec.catalog import InputError, NonZeroShare, PositiveFloat, PositiveInt, Seed, check_arguments
from padrec.data import ItemSequences, Reader
from padrec.quantization.item_embeddings import EmbeddingSource, ItemEmbeddings, warn_about_zeros


@dataclass(frozen=True)
class BehaviourEmbeddings(EmbeddingSource):
    """Factorises how often items occur close together in training sequences.

    The matrix is the shifted positive pointwise mutual information of items within a window, M = max(PMI − log k, 0);
    the vectors are the rows of U Σ^½ from its truncated SVD M ≈ U Σ Vᵀ (Levy and Goldberg 2014, equations 10 and 13).
    Only training items are read. Items without training interactions get vectors of zeros; a warning counts them.

    Args:
        reader: reads the interactions, as for `SemanticIDDataModule`; the catalog's semantic IDs are not used.
        dimension: values in a vector.
        window: largest distance of items that count as close.
        shift: k; values above 1 leave weak pairs out.
        smoothing: power of the context items' frequencies; values below 1 dampen pairs with rare items.
        seed: seed of the SVD's first vector.

    Raises:
        InputError: an argument out of range; from `embed`, too few items or pairs for the dimension, or see the reader.
    """

    reader: Reader
    dimension: PositiveInt = 64
    window: PositiveInt = 5
    shift: PositiveFloat = 1.0
    smoothing: NonZeroShare = 0.75
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_arguments(BehaviourEmbeddings, vars(self))

    def embed(self) -> ItemEmbeddings:
        """See `EmbeddingSource`."""
        dataset = self.reader.read()
        catalog, split = dataset.catalog, dataset.split("drop")
        counts = cooccurrences(split.train, catalog.n_items, self.window)
        vectors = self._factorised(shifted_ppmi(counts, self.shift, self.smoothing), split.source)
        warn_about_zeros(vectors, split.source)
        return ItemEmbeddings(catalog.keys, vectors, catalog.texts, f"behaviour in {split.source}")

    def _factorised(self, matrix: csr_array, source: str) -> Tensor:
        if self.dimension >= matrix.shape[0] or matrix.nnz == 0:
            found = f"{self.dimension} dimensions from {matrix.shape[0]} items with {matrix.nnz} related pairs"
            raise InputError(f"{source}: {found}, expected more items than dimensions, and pairs")
        start = np.random.default_rng(self.seed).standard_normal(matrix.shape[0])
        left, singular, _ = svds(matrix, k=self.dimension, v0=start)
        left, singular = left[:, ::-1], singular[::-1]  # largest first
        # The sign of a singular vector is arbitrary: make its largest entry positive.
        signs = np.sign(left[np.abs(left).argmax(0), np.arange(left.shape[1])])
        vectors = left * (signs * np.sqrt(singular))
        vectors[np.diff(matrix.indptr) == 0] = 0  # rounding leaves tiny values there
        return torch.from_numpy(vectors.astype(np.float32))


def cooccurrences(sequences: ItemSequences, n_items: int, window: int) -> csr_array:
    """Count how often two different items are at most `window` places apart, symmetric `[n_items, n_items]`."""
    items = sequences.items.numpy()
    row_of = torch.repeat_interleave(torch.arange(len(sequences)), sequences.lengths).numpy()
    total = csr_array((n_items, n_items), dtype=np.float64)
    for distance in range(1, window + 1):
        pairs = (row_of[distance:] == row_of[:-distance]) & (items[distance:] != items[:-distance])
        left, right = items[:-distance][pairs], items[distance:][pairs]
        total = total + coo_array((np.ones(len(left)), (left, right)), shape=(n_items, n_items)).tocsr()
    return csr_array(total + total.T)


def shifted_ppmi(counts: csr_array, shift: float = 1.0, smoothing: float = 0.75) -> csr_array:
    """max(log(P(i, j) / (P(i) P(j))) − log k, 0) of co-occurrences `[n, n]`, where k is the shift.

    P(j) ∝ frequency^smoothing (Levy, Goldberg and Dagan 2015, section 3.2).
    """
    pairs = counts.tocoo()
    frequency = np.asarray(counts.sum(1)).ravel()  # [n]
    context = frequency**smoothing
    total = frequency.sum()
    chance = frequency[pairs.row] / total * context[pairs.col] / max(context.sum(), np.finfo(float).tiny)
    values = np.maximum(np.log(pairs.data / total / chance) - np.log(shift), 0)
    matrix = csr_array(coo_array((values, (pairs.row, pairs.col)), shape=counts.shape))
    matrix.eliminate_zeros()
    return matrix
