"""Residual k-means: each slot clusters the residuals of the slots before it; its codes, its file and its interface."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from padrec.catalog import InputError, NonNegativeInt, PositiveInt, Seed, check_arguments
from padrec.catalog.tensor_file import read_tensors, write_tensors
from padrec.quantization.k_means import KMeans, squared_distances


class Quantizer(Protocol):
    """A fitted residual quantizer: each slot's codebook refines the residual of the slots before it."""

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codes in each slot."""

    def encode(self, vectors: Tensor) -> Tensor:
        """Return the nearest code in every slot, int64 `[n, L]` on the CPU, for embeddings `[n, d]`."""

    def distances(self, vectors: Tensor, prefix: Tensor) -> Tensor:
        """Squared distances of embeddings `[n, d]` to each code of the slot that follows a prefix, `[n, K]` on the CPU.

        The prefix is any codes in the first slots, int64 `[n, fewer than L]`.
        """


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


def nearest_codes(vectors: Tensor, codebooks: Sequence[Tensor]) -> Tensor:
    """The nearest code, of codebooks `[K, d]`, to each residual of vectors `[n, d]`, slot by slot, int64 `[n, L]`."""
    codes = []
    for book in codebooks:
        codes.append(squared_distances(vectors, book).argmin(1))
        vectors = vectors - book[codes[-1]]
    return torch.stack(codes, dim=1)


def prefix_distances(vectors: Tensor, codebooks: Sequence[Tensor], prefix: Tensor) -> Tensor:
    """Squared distances of residuals to the codes of the slot after a prefix `[n, l]`, `[n, K]`."""
    for book, codes in zip(codebooks, prefix.to(vectors.device).long().unbind(1), strict=False):
        vectors = vectors - book[codes]
    return squared_distances(vectors, codebooks[prefix.shape[1]])


def sum_of_codes(codebooks: Sequence[Tensor], codes: Tensor) -> Tensor:
    """Sum of the code vectors of each item's codes in the first slots (int64 `[n, l]`), `[n, d]`."""
    slots = codes.to(codebooks[0].device).unbind(1)
    return torch.stack([book[slot] for book, slot in zip(codebooks, slots, strict=False)]).sum(0)


def write_codebooks(path: Path, codebooks: Sequence[Tensor]) -> None:
    """Write a safetensors file with the tensors `slot_0`, `slot_1`, …, each `[K, d]`."""
    write_tensors(path, {f"slot_{slot}": book for slot, book in enumerate(codebooks)})


def read_codebooks(path: Path) -> list[Tensor]:
    """Read the code vectors of each slot, floating point `[K, d]`, that `write_codebooks` wrote, or refuse the file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected codebooks written by SemanticIDWriter")
    tensors = read_tensors(path).tensors
    names = [f"slot_{slot}" for slot in range(len(tensors))]
    if not tensors or tensors.keys() != set(names):
        raise InputError(f"{path}: tensors {', '.join(sorted(tensors)) or 'none'}, expected slot_0, slot_1, …")
    codebooks = [tensors[name] for name in names]
    for name, book in zip(names, codebooks, strict=True):
        if book.ndim != 2 or 0 in book.shape or book.shape[1] != codebooks[0].shape[1]:
            raise InputError(f"{path}: {name} of shape {list(book.shape)}, expected [codes, dimensions] as in slot_0")
        if not book.is_floating_point() or not bool(book.isfinite().all()):
            raise InputError(f"{path}: {name} has values that are not finite floats")
    return codebooks
