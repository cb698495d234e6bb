"""Training batches that are the same on any number of processes."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from padrec.catalog import InputError
from padrec.data.window_rows import FILLER_ROW

_POOL_BATCHES = 50


class GlobalBatchSampler(DistributedSampler[list[int]]):
    """Yields whole batches of row indices, rows of similar length together.

    The batches of an epoch follow from seed and epoch alone: shuffled rows are taken by pools of 50 batches, sorted by
    length within the pool and cut; then the batches are shuffled, a smaller one staying last. Process r of W takes the
    rows `[r::W]` of each, so that any number of processes sees the same global batches and as many of them. A process
    without a row in the smaller batch gets `FILLER_ROW`.

    It descends from `DistributedSampler`, so that Lightning uses it as it is and announces each epoch to it. Pass it to
    `DataLoader(rows, sampler=…, batch_size=None)`.

    Args:
        lengths: length of every row in any unit, int `[n]`.
        batch_size: rows in a global batch, over all processes.
        n_processes: W.
        process: r, `0 … W-1`.
        seed: of the shuffling.

    Raises:
        InputError: fewer rows in a global batch than processes.
    """

    def __init__(self, lengths: Tensor, batch_size: int, n_processes: int = 1, process: int = 0, seed: int = 0) -> None:
        if batch_size < n_processes:
            raise InputError(
                f"batch_size is {batch_size} on {n_processes} processes, expected at least one row for each: "
                "batch_size counts the rows of all processes together"
            )
        super().__init__(
            lengths,  # type: ignore[arg-type]  # only its length is used
            num_replicas=n_processes,
            rank=process,
            seed=seed,
        )
        self.lengths = lengths
        self.batch_size = batch_size
        self.first_batch = 0
        """Batches of this epoch to leave out, because a resumed fit has seen them."""

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.global_batches()[self.first_batch :]:
            yield batch[self.rank :: self.num_replicas].tolist() or [FILLER_ROW]

    def global_batches(self) -> list[Tensor]:
        """This epoch's batches over all processes, each int64 `[batch_size]`; only the last may be smaller."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator)
        batches: list[Tensor] = []
        for pool in torch.split(order, _POOL_BATCHES * self.batch_size):
            by_length = pool[self.lengths[pool].argsort(stable=True)]
            batches.extend(torch.split(by_length, self.batch_size))
        full = len(self.lengths) // self.batch_size
        shuffled = torch.randperm(full, generator=generator).tolist()
        return [batches[number] for number in shuffled] + batches[full:]
