"""Item embeddings as batches for quantizers."""

from typing import NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch import distributed as dist
from torch.utils.data import DataLoader, TensorDataset

from padrec.catalog import PositiveInt, Seed, check_arguments
from padrec.data.training_loader import GlobalBatchSampler
from padrec.quantization.item_embeddings import EmbeddingSource


class ItemVectors(NamedTuple):
    """A batch of item embeddings."""

    items: Tensor  # rows of the embeddings, int64 [B]
    vectors: Tensor  # float32 [B, d]


class ItemEmbeddingDataModule(LightningDataModule):
    """Provides a catalog's embeddings: shuffled for training, in order for validation and prediction.

    The constructor reads or computes the embeddings, so that wrong data fail early and their size can be linked into
    the model.

    Args:
        embeddings: source of the embeddings; in a config a `class_path` with `init_args`.
        batch_size: items in a training batch, over all processes together.
        eval_batch_size: items in a batch of validation or prediction, on each process.
        seed: seed of the order of training batches.

    Raises:
        InputError: wrong embeddings (see the source), or an argument out of range.
    """

    def __init__(
        self,
        embeddings: EmbeddingSource,
        batch_size: PositiveInt = 1024,
        eval_batch_size: PositiveInt = 16384,
        seed: Seed = 0,
    ) -> None:
        check_arguments(ItemEmbeddingDataModule, locals())
        super().__init__()
        self.embeddings = embeddings.embed()
        self.dimension = self.embeddings.dimension  # values in a vector, d
        self._rows = _Rows(torch.arange(len(self.embeddings)), self.embeddings.vectors)
        self._batch_size = batch_size
        self._eval_batch_size = eval_batch_size
        self._seed = seed

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Shuffled batches, the same on any number of processes."""
        n_processes, process = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
        equal_lengths = torch.ones(len(self.embeddings), dtype=torch.long)
        sampler = GlobalBatchSampler(equal_lengths, self._batch_size, n_processes, process, self._seed)
        return DataLoader(self._rows, sampler=sampler, batch_size=None, collate_fn=ItemVectors._make)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """All items in order."""
        return DataLoader(self._rows, batch_size=self._eval_batch_size, collate_fn=ItemVectors._make)

    def predict_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """All items in order."""
        return self.val_dataloader()


class _Rows(TensorDataset):
    """Row numbers and vectors, read batch by batch. `FILLER_ROW`, which is -1, is the last item."""

    def __getitems__(self, rows: list[int]) -> tuple[Tensor, ...]:
        items, vectors = (tensor[rows] for tensor in self.tensors)
        return items, vectors
