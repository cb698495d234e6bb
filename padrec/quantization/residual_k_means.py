"""Residual k-means: each slot clusters what the slots before it left over."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from padrec.catalog import InputError
from padrec.quantization.k_means import KMeans, squared_distances


class ResidualKMeans:
    """Turns embeddings into codes by k-means on residuals, slot after slot.

    Slot 0 clusters the vectors; each next slot clusters the vectors minus the centroids of their codes so far (residual
    quantization, Chen et al. 2010). Beside the vectors, memory holds a copy of those that the centroids are found from,
    and one batch.

    Args:
        codebook_sizes: codes in each slot.
        iterations: Lloyd iterations of a slot, at most.
        init: first centroids, see `KMeans`.
        fit_items: most items to find the centroids from, a random sample; None takes all. All items are encoded.
        batch_size: items computed at a time.
        seed: of the sample and the first centroids.
        device: that computes, as torch names it; the vectors may be on another one.

    Raises:
        InputError: an argument out of range.
    """

    def __init__(
        self,
        codebook_sizes: Sequence[int] = (256, 256, 256, 256),
        iterations: int = 20,
        init: Literal["k-means++", "random"] = "random",
        fit_items: int | None = 262144,
        batch_size: int = 16384,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        if not codebook_sizes:
            raise InputError("no codebook sizes, expected one for each slot")
        if fit_items is not None and fit_items < 1:
            raise InputError(f"fit_items is {fit_items}, expected at least 1, or null for all items")
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
        """A fitted quantizer.

        Args:
            codebooks: centroids of each slot, floating point `[K, d]`, as `codebooks` of a fit.
            batch_size: items computed at a time.
            device: that computes.
        """
        quantizer = cls([len(book) for book in codebooks], batch_size=batch_size, device=device)
        quantizer.codebooks = [book.to(device) for book in codebooks]
        return quantizer

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codes in each slot."""
        return tuple(slot.n_clusters for slot in self._slots)

    def fit(self, vectors: Tensor) -> "ResidualKMeans":
        """Find the codebooks.

        Args:
            vectors: float32 or float64 `[n, d]`, finite.

        Returns:
            Itself.

        Raises:
            InputError: no vectors.
        """
        if vectors.ndim != 2 or 0 in vectors.shape:
            raise InputError(f"vectors of shape {list(vectors.shape)}, expected [items, dimensions], neither 0")
        generator = torch.Generator().manual_seed(self._seed)
        n_sampled = len(vectors) if self._fit_items is None else min(self._fit_items, len(vectors))
        chosen = torch.randperm(len(vectors), generator=generator)[:n_sampled]
        residuals = vectors[chosen.sort().values].to(self._device)  # a copy, made smaller slot by slot
        self.codebooks = []
        for slot in self._slots:
            centroids = slot.fit(residuals, generator)
            for batch in residuals.split(self._batch_size):
                batch.sub_(centroids[slot.assign(batch, centroids)])
            self.codebooks.append(centroids)
        return self

    def encode(self, vectors: Tensor) -> Tensor:
        """See `Quantizer`.

        Raises:
            InputError: not fitted, or vectors of another size.
        """
        self._check(vectors)
        return torch.cat([self._encode_batch(batch.to(self._device)) for batch in vectors.split(self._batch_size)])

    def _encode_batch(self, residuals: Tensor) -> Tensor:
        codes = []
        for codebook in self.codebooks:
            codes.append(squared_distances(residuals, codebook).argmin(1))
            residuals = residuals - codebook[codes[-1]]
        return torch.stack(codes, dim=1).cpu()

    def distances(self, vectors: Tensor, prefix: Tensor) -> Tensor:
        """See `Quantizer`.

        Raises:
            InputError: not fitted, or vectors of another size.
        """
        self._check(vectors)
        residuals = vectors.to(self._device)
        for codebook, codes in zip(self.codebooks, prefix.to(self._device).long().unbind(1), strict=False):
            residuals = residuals - codebook[codes]
        return squared_distances(residuals, self.codebooks[prefix.shape[1]]).cpu()

    def decode(self, codes: Tensor) -> Tensor:
        """The vectors that codes stand for.

        Args:
            codes: int64 `[n, any number of the first slots]`.

        Returns:
            Sum of the codes' centroids, `[n, d]`, on the CPU.
        """
        chosen = [book[slot.to(self._device)] for book, slot in zip(self.codebooks, codes.unbind(1), strict=False)]
        return torch.stack(chosen).sum(0).cpu()

    def _check(self, vectors: Tensor) -> None:
        if not self.codebooks:
            raise InputError("the quantizer has no codebooks yet: call `fit` before")
        expected = self.codebooks[0].shape[1]
        if vectors.shape[1:] != (expected,):
            raise InputError(
                f"vectors of shape {list(vectors.shape)}, expected [items, {expected}], as those of the fit"
            )
