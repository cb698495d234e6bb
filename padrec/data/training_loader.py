"""Training batches that are the same on any number of processes, and a loader that resumes within an epoch."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from padrec.catalog import InputError
from padrec.data.batches import SequenceBatch
from padrec.data.training_rows import FILLER_ROW

_POOL_BATCHES = 50


class GlobalBatchSampler(DistributedSampler[list[int]]):
    """Yields whole batches of row indices, with rows of similar length together.

    The batches of an epoch depend only on seed and epoch: shuffled rows are split into pools of 50 batches, sorted by
    length within a pool and cut into batches; then the batches are shuffled, except a smaller last one. Process r of W
    takes the rows `[r::W]` of each, so that any number of processes sees the same global batches. A process without a
    row in the last batch gets `FILLER_ROW`.

    As a `DistributedSampler`, it is kept by Lightning and told about each epoch. Pass it to
    `DataLoader(rows, sampler=…, batch_size=None)`. Fewer rows in a global batch than processes are an InputError.

    Args:
        lengths: length of every row in any unit, int `[n]`.
        batch_size: rows in a global batch, over all processes.
        n_processes: W.
        process: r, `0 … W-1`.
        seed: seed of the shuffling.
    """

    def __init__(self, lengths: Tensor, batch_size: int, n_processes: int = 1, process: int = 0, seed: int = 0) -> None:
        if batch_size < n_processes:
            expected = "at least one row for each: batch_size counts the rows of all processes together"
            raise InputError(f"batch_size is {batch_size} on {n_processes} processes, expected {expected}")
        super().__init__(
            lengths,  # type: ignore[arg-type]  # only its length is used
            num_replicas=n_processes,
            rank=process,
            seed=seed,
        )
        self.lengths = lengths
        self.batch_size = batch_size
        self.first_batch = 0
        """Number of batches to skip in this epoch, because a resumed fit has seen them."""

    def __len__(self) -> int:
        return math.ceil(len(self.lengths) / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.global_batches()[self.first_batch :]:
            yield batch[self.rank :: self.num_replicas].tolist() or [FILLER_ROW]

    def global_batches(self) -> list[Tensor]:
        """Return this epoch's batches over all processes, each int64 `[batch_size]`; only the last may be smaller."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator)
        batches: list[Tensor] = []
        for pool in torch.split(order, _POOL_BATCHES * self.batch_size):
            by_length = pool[self.lengths[pool].argsort(stable=True)]
            batches.extend(torch.split(by_length, self.batch_size))
        full = len(self.lengths) // self.batch_size
        shuffled = torch.randperm(full, generator=generator).tolist()
        return [batches[number] for number in shuffled] + batches[full:]


class ResumableLoader(DataLoader[SequenceBatch]):
    """Stores in checkpoints how many batches of the epoch it has yielded, and continues after them.

    Lightning stores the state of any loader with `state_dict` and `load_state_dict` and restores it when a fit resumes.
    The number of processes may change in between, since the global batches do not depend on it.
    """

    # Class attributes and no __init__: Lightning inspects and repeats the constructor call of a loader.
    _epoch = 0
    _yielded = 0
    _loaded: dict[str, int] | None = None

    def __iter__(self) -> Iterator[SequenceBatch]:  # type: ignore[override]  # a generator has no _BaseDataLoaderIter
        # A generator reads the sampler at its first batch: Lightning creates the iterator before it announces the
        # epoch, and worker processes would read the sampler at once.
        sampler = self.sampler
        if isinstance(sampler, GlobalBatchSampler):
            self._epoch = sampler.epoch
            self._yielded = sampler.first_batch = self._batches_seen(sampler)
        for batch in super().__iter__():
            self._yielded += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches yielded in this epoch, and the settings that they depend on."""
        return {"epoch": self._epoch, "batches": self._yielded, **self._batching()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Make the next pass over this state's epoch start after its batches."""
        self._loaded = state_dict

    def _batching(self) -> dict[str, int]:
        sampler = self.sampler
        if not isinstance(sampler, GlobalBatchSampler):
            return {}
        return {"rows": len(sampler.lengths), "batch_size": sampler.batch_size, "seed": sampler.seed}

    def _batches_seen(self, sampler: GlobalBatchSampler) -> int:
        loaded, self._loaded = self._loaded, None
        # A checkpoint from the end of an epoch is followed by a new epoch.
        if loaded is None or loaded["epoch"] != sampler.epoch:
            return 0
        now = self._batching()
        before = {name: loaded.get(name) for name in now}
        if before != now:
            found = f"the checkpoint is from the middle of an epoch with {before}, the data now have {now}"
            expected = "the same rows, batch_size and seed; a checkpoint from the end of an epoch resumes with any"
            raise InputError(f"{found}: expected {expected}")
        return loaded["batches"]
