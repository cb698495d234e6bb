"""Residual k-means as a command."""

from collections.abc import Sequence
from typing import Literal

from padrec.catalog.quantizers import ResidualKMeans
from padrec.quantization.quantizer_module import QuantizerModule


class ResidualKMeansQuantizer(QuantizerModule):
    """Clusters the embeddings when validation or prediction starts: there is nothing to train by gradients.

    Args:
        codebook_sizes: codes in each slot.
        iterations: Lloyd iterations of a slot, at most.
        init: first centroids, `k-means++` or a `random` subset.
        fit_items: most items to find the centroids from, a random sample; None takes all.
        batch_size: items computed at a time.
        seed: of the sample and the first centroids.

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
    ) -> None:
        super().__init__()
        self._settings = (tuple(codebook_sizes), iterations, init, fit_items, batch_size, seed)
        self._quantizer = ResidualKMeans(*self._settings)

    @property
    def quantizer(self) -> ResidualKMeans:
        """See `QuantizerModule`."""
        return self._quantizer

    def on_validation_start(self) -> None:
        """Cluster."""
        self._fit()

    def on_predict_start(self) -> None:
        """Cluster."""
        self._fit()

    def _fit(self) -> None:
        # The device is known only now. All processes find the same centroids.
        self._quantizer = ResidualKMeans(*self._settings, device=self.device).fit(self.embeddings.vectors)
