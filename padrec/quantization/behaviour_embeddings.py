"""Item embeddings from what users did, without any text."""

import logging

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from scipy.sparse.linalg import svds
from torch import Tensor

from padrec.catalog import InputError
from padrec.data import ItemSequences, Reader, Split, leave_one_out
from padrec.quantization.item_embeddings import EmbeddingSource, ItemEmbeddings

_LOG = logging.getLogger(__name__)


class BehaviourEmbeddings(EmbeddingSource):
    """Factorises how often items occur close together in training sequences.

    The matrix is the shifted positive pointwise mutual information of items within a window, M = max(PMI − log k, 0);
    with its truncated SVD M ≈ U Σ Vᵀ the vectors are the rows of U Σ^½ (Levy and Goldberg 2014, equations 10 and 13).
    Only training items are read: the last two of a user under leave-one-out, or the given validation and test parts,
    stay unseen. Items without training interactions get vectors of zeros, and are counted in a warning.

    Args:
        reader: of the interactions, as for `SemanticIDDataModule`; the catalog's semantic IDs are not used.
        dimension: of the vectors.
        window: how many places apart two items still count as close.
        shift: k, above 1 to leave weak pairs out.
        smoothing: power of the context items' frequencies; below 1 it tames pairs with rare items.
        seed: of the SVD's first vector.

    Raises:
        InputError: an argument out of range.
    """

    def __init__(
        self,
        reader: Reader,
        dimension: int = 64,
        window: int = 5,
        shift: float = 1.0,
        smoothing: float = 0.75,
        seed: int = 0,
    ) -> None:
        if dimension < 1 or window < 1 or shift <= 0 or not 0 < smoothing <= 1:
            raise InputError(
                f"dimension {dimension}, window {window}, shift {shift}, smoothing {smoothing}: expected at least one "
                "dimension and place, a positive shift and a smoothing in (0, 1]"
            )
        self._reader = reader
        self._dimension = dimension
        self._window = window
        self._shift = shift
        self._smoothing = smoothing
        self._seed = seed

    def embed(self) -> ItemEmbeddings:
        """See `EmbeddingSource`.

        Raises:
            InputError: wrong data (see the reader), or too few items or pairs for the dimension.
        """
        dataset = self._reader.read()
        found = dataset.interactions
        split = found if isinstance(found, Split) else leave_one_out(found, "drop")
        counts = cooccurrences(split.train, dataset.catalog.n_items, self._window)
        vectors = self._factorised(shifted_ppmi(counts, self._shift, self._smoothing), split.source)
        unseen = int((vectors == 0).all(1).sum())
        if unseen > 0:
            _LOG.warning(
                "%s: %d of %d items get vectors of zeros, for they have no pairs to learn from in the training items",
                split.source, unseen, len(vectors),
            )  # fmt: skip
        catalog = dataset.catalog
        return ItemEmbeddings(catalog.keys, vectors, catalog.texts, f"behaviour in {split.source}")

    def _factorised(self, matrix: csr_array, source: str) -> Tensor:
        if self._dimension >= matrix.shape[0] or matrix.nnz == 0:
            raise InputError(
                f"{source}: {self._dimension} dimensions from {matrix.shape[0]} items with {matrix.nnz} related pairs, "
                "expected more items than dimensions, and pairs"
            )
        start = np.random.default_rng(self._seed).standard_normal(matrix.shape[0])
        left, singular, _ = svds(matrix, k=self._dimension, v0=start)
        left, singular = left[:, ::-1], singular[::-1]  # largest first
        # The sign of a singular vector is arbitrary: its largest entry is made positive.
        signs = np.sign(left[np.abs(left).argmax(0), np.arange(left.shape[1])])
        vectors = left * (signs * np.sqrt(singular))
        vectors[np.diff(matrix.indptr) == 0] = 0  # rounding leaves almost zeros there
        return torch.from_numpy(vectors.astype(np.float32))


def cooccurrences(sequences: ItemSequences, n_items: int, window: int) -> csr_array:
    """How often two items stand at most `window` places apart in a sequence, a symmetric matrix `[n_items, n_items]`.

    An item's neighbourhood of itself is not counted.
    """
    items = sequences.items.numpy()
    row_of = torch.repeat_interleave(torch.arange(len(sequences)), sequences.lengths).numpy()
    total = csr_array((n_items, n_items), dtype=np.float64)
    for distance in range(1, window + 1):
        pairs = (row_of[distance:] == row_of[:-distance]) & (items[distance:] != items[:-distance])
        left, right = items[:-distance][pairs], items[distance:][pairs]
        total = total + coo_array((np.ones(len(left)), (left, right)), shape=(n_items, n_items)).tocsr()
    return csr_array(total + total.T)


def shifted_ppmi(counts: csr_array, shift: float = 1.0, smoothing: float = 0.75) -> csr_array:
    """max(log(P(i, j) / (P(i) P(j))) − log k, 0), with P(j) ∝ frequency^smoothing.

    Args:
        counts: co-occurrences, `[n, n]`.
        shift: k.
        smoothing: power of the context's frequencies (Levy, Goldberg and Dagan 2015, section 3.2).
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
