"""Item embeddings as batches to train and run quantizers on."""

from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch import distributed as dist
from torch.utils.data import DataLoader, Dataset

from padrec.catalog import InputError
from padrec.data.global_batch_sampler import GlobalBatchSampler
from padrec.quantization.item_embeddings import EmbeddingSource, ItemEmbeddings


class ItemVectors(NamedTuple):
    """A batch of item embeddings.

    Attributes:
        items: rows of the embeddings, int64 `[B]`.
        vectors: float32 `[B, d]`.
    """

    items: Tensor
    vectors: Tensor


class ItemEmbeddingDataModule(LightningDataModule):
    """Gives a catalog's embeddings: shuffled to train on, in order to validate and to predict.

    The constructor reads or computes the embeddings, so that wrong data end a run before it starts and their size can
    be linked into the model.

    Args:
        embeddings: where they come from; in a config a `class_path` with `init_args`.
        batch_size: items in a training batch, over all processes together.
        eval_batch_size: items in a batch of validation or prediction, on each process.
        seed: of the order of training batches.

    Raises:
        InputError: wrong embeddings (see the source), or an argument out of range.
    """

    def __init__(
        self, embeddings: EmbeddingSource, batch_size: int = 1024, eval_batch_size: int = 16384, seed: int = 0
    ) -> None:
        super().__init__()
        if min(batch_size, eval_batch_size) < 1 or seed < 0:
            raise InputError(
                f"batch_size {batch_size}, eval_batch_size {eval_batch_size}, seed {seed}: "
                "expected batches of at least one item and no negative seed"
            )
        self._embeddings = embeddings.embed()
        self._batch_size = batch_size
        self._eval_batch_size = eval_batch_size
        self._seed = seed

    @property
    def embeddings(self) -> ItemEmbeddings:
        """All of them."""
        return self._embeddings

    @property
    def dimension(self) -> int:
        """Values in a vector."""
        return self._embeddings.dimension

    def train_dataloader(self) -> DataLoader[ItemVectors]:
        """Shuffled batches, the same on any number of processes."""
        n_processes, process = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
        alike = torch.ones(len(self._embeddings), dtype=torch.long)
        sampler = GlobalBatchSampler(alike, self._batch_size, n_processes, process, self._seed)
        return DataLoader(_Rows(self._embeddings.vectors), sampler=sampler, batch_size=None)

    def val_dataloader(self) -> DataLoader[ItemVectors]:
        """All items in order."""
        return self._in_order()

    def predict_dataloader(self) -> DataLoader[ItemVectors]:
        """All items in order."""
        return self._in_order()

    def _in_order(self) -> DataLoader[ItemVectors]:
        return DataLoader(_Rows(self._embeddings.vectors), batch_size=self._eval_batch_size, collate_fn=_as_it_is)


class _Rows(Dataset[ItemVectors]):
    """Whole batches of vectors by their row numbers."""

    def __init__(self, vectors: Tensor) -> None:
        self._vectors = vectors

    def __len__(self) -> int:
        return len(self._vectors)

    def __getitem__(self, rows: list[int]) -> ItemVectors:
        # FILLER_ROW, which keeps a process without rows in step, is -1: the last item once more.
        items = torch.tensor(rows) % len(self._vectors)
        return ItemVectors(items, self._vectors[items])

    def __getitems__(self, rows: list[int]) -> ItemVectors:
        return self[rows]


def _as_it_is(batch: Any) -> Any:  # noqa: ANN401  # the loader's own type for this is a list
    return batch
