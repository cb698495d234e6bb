"""A dataloader that goes on in the middle of an epoch."""

from collections.abc import Iterator

from torch.utils.data import DataLoader

from padrec.catalog import InputError
from padrec.data.batches import SequenceBatch
from padrec.data.global_batch_sampler import GlobalBatchSampler


class ResumableLoader(DataLoader[SequenceBatch]):
    """Remembers in checkpoints how many batches of the epoch it has yielded, and goes on behind them.

    Lightning stores the state of any loader with `state_dict` and `load_state_dict`, and hands it back when a fit
    resumes. The number of processes may change in between, since the global batches do not depend on it.
    """

    # Class attributes and no __init__: Lightning inspects and repeats the constructor call of a loader.
    _epoch = 0
    _yielded = 0
    _loaded: dict[str, int] | None = None

    def __iter__(self) -> Iterator[SequenceBatch]:  # type: ignore[override]  # a generator has no _BaseDataLoaderIter
        # As a generator it starts at its first batch. Lightning creates the iterator before it has announced the epoch,
        # and worker processes would read the sampler at once.
        sampler = self.sampler
        if isinstance(sampler, GlobalBatchSampler):
            self._epoch = sampler.epoch
            self._yielded = sampler.first_batch = self._batches_seen(sampler)
        for batch in super().__iter__():
            self._yielded += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The batches yielded in this epoch, and what they were cut from."""
        return {"epoch": self._epoch, "batches": self._yielded, **self._batching()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Let the next pass over this state's epoch start behind the batches yielded before."""
        self._loaded = state_dict

    def _batching(self) -> dict[str, int]:
        sampler = self.sampler
        if not isinstance(sampler, GlobalBatchSampler):
            return {}
        return {"rows": len(sampler.lengths), "batch_size": sampler.batch_size, "seed": sampler.seed}

    def _batches_seen(self, sampler: GlobalBatchSampler) -> int:
        loaded, self._loaded = self._loaded, None
        # A checkpoint from an epoch's end is followed by the next epoch, of which nothing has been seen.
        if loaded is None or loaded["epoch"] != sampler.epoch:
            return 0
        now = self._batching()
        before = {name: loaded.get(name) for name in now}
        if before != now:
            raise InputError(
                f"the checkpoint is from the middle of an epoch with {before}, the data now have {now}: expected the "
                "same rows, batch_size and seed; a checkpoint from the end of an epoch resumes with any"
            )
        return loaded["batches"]
