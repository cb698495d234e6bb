"""The base class of the quantizers' Lightning modules, and residual k-means as one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import lightning as L
import torch
from torch import Tensor

from padrec.catalog import CodebookSize, InputError, NonNegativeInt, PositiveInt, Seed, check_arguments
from padrec.metrics import CodebookQuality
from padrec.quantization.embedding_datamodule import ItemEmbeddingDataModule, ItemVectors
from padrec.quantization.item_embeddings import ItemEmbeddings
from padrec.quantization.residual_k_means import Quantizer, ResidualKMeans, read_codebooks


class DecodingQuantizer(Quantizer, Protocol):
    """A quantizer that can also turn codes back into vectors."""

    def decode(self, codes: Tensor) -> Tensor:
        """Return the vectors of codes in the first slots (int64 `[n, l]`), `[n, d]`."""


class QuantizerModule(L.LightningModule):
    """Validates a quantizer on a whole catalog, and predicts semantic IDs.

    Subclasses define `quantizer` and `codebooks`. Arguments are those of the next class of several parents.
    """

    _quality: CodebookQuality  # during a validation

    @property
    def quantizer(self) -> DecodingQuantizer:
        """The quantizer, fitted or not."""
        raise NotImplementedError

    @property
    def codebooks(self) -> list[Tensor]:
        """Code vectors of each slot, `[K, d]` or `[K, latent size]`; empty before a fit."""
        raise NotImplementedError

    @property
    def embeddings(self) -> ItemEmbeddings:
        """The embeddings of the trainer's datamodule, which must be an `ItemEmbeddingDataModule`."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, ItemEmbeddingDataModule):
            raise InputError(f"the data of a quantizer are {data!r}, expected an ItemEmbeddingDataModule")
        return data.embeddings

    def on_validation_epoch_start(self) -> None:
        """Reset the metric."""
        self._quality = CodebookQuality(len(self.embeddings), self.quantizer.codebook_sizes).to(self.device)

    def validation_step(self, batch: ItemVectors, batch_idx: int) -> None:
        """Encode a batch of items and update the metric."""
        codes = self.quantizer.encode(batch.vectors)
        # Squared error per value of the reconstruction from the first l + 1 slots, [B, L].
        decoded = [self.quantizer.decode(codes[:, : slot + 1]) for slot in range(codes.shape[1])]
        errors = [(made.to(self.device) - batch.vectors).square().mean(1) for made in decoded]
        self._quality.update(batch.items, codes.to(self.device), torch.stack(errors, dim=1))

    def on_validation_epoch_end(self) -> None:
        """Log codebook use, perplexity and reconstruction error by slot, and collisions, see `CodebookQuality`."""
        values = {f"val/{name}": value.float() for name, value in self._quality.compute().items()}
        # The metric has reduced them over processes.
        self.log_dict(cast(dict[str, Any], values), rank_zero_only=False)
        del self._quality

    def predict_step(self, batch: ItemVectors, batch_idx: int) -> Tensor:
        """Return the nearest codes of a batch of items, int64 `[B, L]`; items may share an ID."""
        return self.quantizer.encode(batch.vectors)


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
