"""Residual k-means: each slot clusters what the slots before it left over."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from padrec.catalog.errors import InputError
from padrec.catalog.quantizers.k_means import KMeans, squared_distances
from padrec.catalog.quantizers.points import Residuals, batches


class ResidualKMeans:
    """Turns embeddings into codes by k-means on residuals, slot after slot.

    Slot 0 clusters the vectors; each next slot clusters the vectors minus the centroids of their codes so far (residual
    quantization, Chen et al. 2010). One batch is computed at a time and residuals are never stored, so beside the
    vectors the memory hardly grows with their number.

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
        if self._fit_items is not None and self._fit_items < len(vectors):
            chosen = torch.randperm(len(vectors), generator=generator)[: self._fit_items]
            vectors = vectors[chosen.sort().values]
        codes = torch.empty(len(vectors), 0, dtype=torch.int32)
        self.codebooks = []
        for slot in self._slots:
            points = Residuals(vectors, self.codebooks, codes, self._device)
            centroids = slot.fit(points, generator)
            nearest, _ = slot.assign(points, centroids)
            codes = torch.cat([codes, nearest[:, None].int()], dim=1)
            self.codebooks.append(centroids)
        return self

    def encode(self, vectors: Tensor) -> Tensor:
        """See `Quantizer`.

        Raises:
            InputError: not fitted, or vectors of another size.
        """
        self._check(vectors)
        codes = torch.empty(len(vectors), len(self.codebooks), dtype=torch.long)
        for batch in batches(len(vectors), self._batch_size):
            residual = vectors[batch].to(self._device)  # [m, d]
            for slot, codebook in enumerate(self.codebooks):
                nearest = squared_distances(residual, codebook).argmin(1)
                residual = residual - codebook[nearest]
                codes[batch, slot] = nearest.cpu()
        return codes

    def distances(self, vectors: Tensor, prefix: Tensor) -> Tensor:
        """See `Quantizer`.

        Raises:
            InputError: not fitted, or vectors of another size.
        """
        self._check(vectors)
        n_slots = prefix.shape[1]
        residual = Residuals(vectors, self.codebooks[:n_slots], prefix, self._device).rows(slice(None))
        return squared_distances(residual, self.codebooks[n_slots]).cpu()

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
