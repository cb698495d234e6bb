from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from padrec.catalog import InputError
from padrec.data import SemanticIDDataModule
from padrec.data.training_loader import GlobalBatchSampler
from padrec.data.training_rows import FILLER_ROW
from tests.data.toy_data import Recorder, ToyReader
from tests.tiny_training import quiet_trainer

lengths_strategy = st.lists(st.integers(1, 30), min_size=1, max_size=300).map(torch.tensor)


def batches(lengths: torch.Tensor, batch_size: int, n_processes: int, epoch: int = 0) -> list[list[list[int]]]:
    """The batches of every process."""
    found = []
    for process in range(n_processes):
        sampler = GlobalBatchSampler(lengths, batch_size, n_processes, process, seed=5)
        sampler.set_epoch(epoch)
        found.append(list(sampler))
        assert len(found[-1]) == len(sampler)
    return found


@given(lengths_strategy, st.integers(3, 12), st.integers(0, 3))
def test_any_number_of_processes_sees_the_same_global_batches(
    lengths: torch.Tensor, batch_size: int, epoch: int
) -> None:
    (alone,) = batches(lengths, batch_size, 1, epoch)
    for n_processes in (2, 3):
        shared = batches(lengths, batch_size, n_processes, epoch)
        for number, batch in enumerate(alone):
            parts = [process[number] for process in shared]
            assert all(parts)
            rows = [row for part in parts for row in part if row != FILLER_ROW]
            assert sorted(rows) == sorted(batch)
            assert all(part == [FILLER_ROW] for part in parts if FILLER_ROW in part)


@given(lengths_strategy, st.integers(1, 12))
def test_every_row_comes_once_and_only_the_last_batch_is_smaller(lengths: torch.Tensor, batch_size: int) -> None:
    (found,) = batches(lengths, batch_size, 1)
    assert sorted(row for batch in found for row in batch) == list(range(len(lengths)))
    assert all(len(batch) == batch_size for batch in found[:-1])


def test_epochs_differ_and_repeat_exactly() -> None:
    lengths = torch.arange(100) % 7
    assert batches(lengths, 8, 1, epoch=1) == batches(lengths, 8, 1, epoch=1)
    assert batches(lengths, 8, 1, epoch=1) != batches(lengths, 8, 1, epoch=2)


def test_rows_of_similar_length_share_a_batch() -> None:
    lengths = torch.randint(1, 31, (2000,), generator=torch.Generator().manual_seed(0))
    (found,) = batches(lengths, 50, 1)
    spread = [int(lengths[batch].max() - lengths[batch].min()) for batch in found]
    assert sum(spread) / len(spread) < 3


def test_more_processes_than_rows_in_a_batch_are_refused() -> None:
    with pytest.raises(InputError, match="batch_size is 2 on 3 processes"):
        GlobalBatchSampler(torch.ones(10), 2, n_processes=3)


def datamodule(batch_size: int = 7, num_workers: int = 0, seed: int = 0) -> SemanticIDDataModule:
    return SemanticIDDataModule(
        ToyReader(), list_length=2, max_history=3, batch_size=batch_size, num_workers=num_workers, seed=seed
    )


def trainer(folder: Path, *callbacks: Callback, max_steps: int = -1, validate: bool = False) -> Trainer:
    return quiet_trainer(
        folder,
        max_epochs=2,
        max_steps=max_steps,
        callbacks=list(callbacks),
        limit_val_batches=1.0 if validate else 0,
        val_check_interval=3 if validate else 1.0,
        enable_checkpointing=bool(callbacks),
    )


def every_step(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1)


def every_validation(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder, "{step}", save_top_k=-1, save_on_train_epoch_end=False)


def every_epoch(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder, "{step}", save_top_k=-1, save_on_train_epoch_end=True)


def resumed_batches(checkpoint: Path, folder: Path, validate: bool = False, max_steps: int = -1) -> list[list[str]]:
    recorder = Recorder()
    run = trainer(folder, validate=validate, max_steps=max_steps)
    run.fit(recorder, datamodule=datamodule(), ckpt_path=str(checkpoint), weights_only=True)
    return recorder.batches


# Left out: a checkpoint from on_train_epoch_end under max_steps. Lightning 2.6 itself then skips the epoch after it.
@pytest.mark.parametrize(
    ("moment", "checkpoints", "max_steps"),
    [
        (every_step, 20, -1),
        (every_step, 20, 1000),
        (every_validation, 6, -1),
        (every_validation, 6, 1000),
        (every_epoch, 2, -1),
    ],
)
def test_a_resumed_fit_sees_the_batches_it_had_not_seen(
    tmp_path: Path, moment: Callable[[Path], ModelCheckpoint], checkpoints: int, max_steps: int
) -> None:
    validate = moment is every_validation
    whole = Recorder()
    trainer(tmp_path, moment(tmp_path), validate=validate, max_steps=max_steps).fit(whole, datamodule=datamodule())
    assert len(whole.batches) == 20
    found = list(tmp_path.glob("*.ckpt"))
    assert len(found) == checkpoints
    for checkpoint in found:
        step = torch.load(checkpoint, weights_only=True)["global_step"]
        assert resumed_batches(checkpoint, tmp_path, validate, max_steps) == whole.batches[step:], checkpoint.name


def test_worker_processes_change_nothing(tmp_path: Path) -> None:
    whole, loaded_by_worker, resumed = Recorder(), Recorder(), Recorder()
    trainer(tmp_path).fit(whole, datamodule=datamodule())
    trainer(tmp_path, every_step(tmp_path)).fit(loaded_by_worker, datamodule=datamodule(num_workers=1))
    assert loaded_by_worker.batches == whole.batches
    checkpoint = tmp_path / "step=9.ckpt"
    trainer(tmp_path).fit(resumed, datamodule=datamodule(num_workers=1), ckpt_path=str(checkpoint), weights_only=True)
    assert resumed.batches == whole.batches[9:]


def test_resuming_mid_epoch_with_other_batches_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path, every_step(tmp_path)).fit(Recorder(), datamodule=datamodule())
    for other in (datamodule(batch_size=8), datamodule(seed=1)):
        with pytest.raises(InputError, match="middle of an epoch"):
            trainer(tmp_path).fit(Recorder(), datamodule=other, ckpt_path=str(tmp_path / "step=2.ckpt"))


def test_overfitting_on_a_few_batches_still_works(tmp_path: Path) -> None:
    recorder = Recorder()
    run = quiet_trainer(tmp_path, overfit_batches=2, max_epochs=2, num_sanity_val_steps=2)
    run.fit(recorder, datamodule=datamodule())
    assert recorder.batches[:2] == recorder.batches[2:]
