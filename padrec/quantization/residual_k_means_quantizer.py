"""Residual k-means as a module of `padrec validate` and `padrec predict`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor

from padrec.catalog import CodebookSize, InputError, NonNegativeInt, PositiveInt, Seed, check_arguments
from padrec.quantization.codebooks import read_codebooks
from padrec.quantization.quantizer_module import QuantizerModule
from padrec.quantization.residual_k_means import ResidualKMeans


class ResidualKMeansQuantizer(QuantizerModule):
    """Clusters the embeddings when validation or prediction starts; there is no training by gradients.

    Args:
        codebook_sizes: codes in each slot.
        iterations: most Lloyd iterations of a slot.
        init: first centroids, `k-means++` or a `random` subset.
        fit_items: most items to fit the centroids to, a random sample; None fits all.
        batch_size: items computed at a time.
        seed: seed of the sample and the first centroids.
        codebooks: the `codebooks.safetensors` that `SemanticIDWriter` wrote in an earlier run, to encode new items;
            None clusters.

    Raises:
        InputError: an argument out of range, or codebooks that cannot be read or have other sizes.
    """

    def __init__(
        self,
        codebook_sizes: Sequence[CodebookSize] = (256, 256, 256, 256),
        iterations: NonNegativeInt = 20,
        init: Literal["k-means++", "random"] = "random",
        fit_items: PositiveInt | None = 262144,
        batch_size: PositiveInt = 16384,
        seed: Seed = 0,
        codebooks: str | None = None,
    ) -> None:
        check_arguments(ResidualKMeansQuantizer, locals())
        super().__init__()
        self._settings = (tuple(codebook_sizes), iterations, init, fit_items, batch_size, seed)
        self._quantizer = ResidualKMeans(*self._settings)
        self._batch_size = batch_size
        self._given = None if codebooks is None else read_codebooks(Path(codebooks))
        if self._given is not None and (found := [len(book) for book in self._given]) != list(codebook_sizes):
            raise InputError(f"{codebooks}: {found} codes, expected codebook_sizes {list(codebook_sizes)}")

    @property
    def quantizer(self) -> ResidualKMeans:
        """See `QuantizerModule`."""
        return self._quantizer

    @property
    def codebooks(self) -> list[Tensor]:
        """See `QuantizerModule`."""
        return self._given or self._quantizer.codebooks

    def on_predict_start(self) -> None:
        """Cluster, unless codebooks were given: the device is known only now. All processes find the same centroids."""
        if self._given is not None:
            self._quantizer = ResidualKMeans.of_codebooks(self._given, self._batch_size, self.device)
        else:
            self._quantizer = ResidualKMeans(*self._settings, device=self.device).fit(self.embeddings.vectors)

    on_validation_start = on_predict_start
