"""Residual k-means: each slot clusters the residuals of the slots before it."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from padrec.catalog import InputError, NonNegativeInt, PositiveInt, Seed, check_arguments
from padrec.quantization.codebooks import nearest_codes, prefix_distances, sum_of_codes
from padrec.quantization.k_means import KMeans


class ResidualKMeans:
    """Turns embeddings into codes by k-means on residuals, slot after slot.

    Slot 0 clusters the vectors; each next slot clusters the vectors minus their centroids so far (residual
    quantization, Chen et al. 2010). Beside the vectors, memory holds a copy of the fitted sample and one batch.

    Args:
        codebook_sizes: codes in each slot.
        iterations: most Lloyd iterations of a slot.
        init: first centroids, see `KMeans`.
        fit_items: most items to fit the centroids to, a random sample; None fits all. All items are encoded.
        batch_size: items computed at a time.
        seed: seed of the sample and the first centroids.
        device: device that computes; the vectors may be on another one.

    Raises:
        InputError: from `fit`, no vectors; from `encode` and `distances`, not fitted, or vectors of another size.
    """

    def __init__(
        self,
        codebook_sizes: Sequence[PositiveInt] = (256, 256, 256, 256),
        iterations: NonNegativeInt = 20,
        init: Literal["k-means++", "random"] = "random",
        fit_items: PositiveInt | None = 262144,
        batch_size: PositiveInt = 16384,
        seed: Seed = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        check_arguments(ResidualKMeans, locals())
        if not codebook_sizes:
            raise InputError("no codebook sizes, expected one for each slot")
        self._slots = [KMeans(size, iterations, init, batch_size) for size in codebook_sizes]
        self._fit_items = fit_items
        self._batch_size = batch_size
        self._seed = seed
        self._device = torch.device(device)
        self.codebooks: list[Tensor] = []
        """Centroids of each slot, `[K, d]`; empty before `fit`."""

    @classmethod
    def of_codebooks(
        cls, codebooks: Sequence[Tensor], batch_size: int = 16384, device: str | torch.device = "cpu"
    ) -> "ResidualKMeans":
        """Make a fitted quantizer from the `codebooks` of an earlier fit; see the class for the other arguments."""
        quantizer = cls([len(book) for book in codebooks], batch_size=batch_size, device=device)
        quantizer.codebooks = [book.to(device) for book in codebooks]
        return quantizer

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codes in each slot."""
        return tuple(slot.n_clusters for slot in self._slots)

    def fit(self, vectors: Tensor) -> "ResidualKMeans":
        """Find the codebooks of finite float32 or float64 vectors `[n, d]`; returns itself."""
        if vectors.ndim != 2 or 0 in vectors.shape:
            raise InputError(f"vectors of shape {list(vectors.shape)}, expected [items, dimensions], neither 0")
        generator = torch.Generator().manual_seed(self._seed)
        n_sampled = len(vectors) if self._fit_items is None else min(self._fit_items, len(vectors))
        chosen = torch.randperm(len(vectors), generator=generator)[:n_sampled]
        residuals = vectors[chosen.sort().values].to(self._device)  # a copy, reduced in place
        self.codebooks = []
        for slot in self._slots:
            centroids = slot.fit(residuals, generator)
            for batch in residuals.split(self._batch_size):
                batch.sub_(centroids[slot.assign(batch, centroids)])
            self.codebooks.append(centroids)
        return self

    def encode(self, vectors: Tensor) -> Tensor:
        """See `Quantizer`."""
        self._check(vectors)
        batches = vectors.split(self._batch_size)
        return torch.cat([nearest_codes(batch.to(self._device), self.codebooks).cpu() for batch in batches])

    def distances(self, vectors: Tensor, prefix: Tensor) -> Tensor:
        """See `Quantizer`."""
        self._check(vectors)
        return prefix_distances(vectors.to(self._device), self.codebooks, prefix).cpu()

    def decode(self, codes: Tensor) -> Tensor:
        """Return the sum of the centroids of codes in the first slots (int64 `[n, l]`), `[n, d]` on the CPU."""
        return sum_of_codes(self.codebooks, codes).cpu()

    def _check(self, vectors: Tensor) -> None:
        if not self.codebooks:
            raise InputError("the quantizer has no codebooks: call `fit` first")
        expected = self.codebooks[0].shape[1]
        if vectors.shape[1:] != (expected,):
            raise InputError(f"vectors of shape {list(vectors.shape)}, expected [items, {expected}] as in the fit")
