import os
import signal
from pathlib import Path

import pytest
import torch
from lightning.fabric.plugins import TorchCheckpointIO

from padrec.catalog import InputError
from padrec.training.whole_checkpoint_io import WholeCheckpointIO
from tests.tiny_training import fitted, tiny_data, tiny_recommender


class Killed:
    """Kills the process that writes it to a checkpoint."""

    def __reduce__(self) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return ""


def test_a_kill_while_a_checkpoint_is_written_leaves_the_last_one(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    WholeCheckpointIO().save_checkpoint({"step": 1}, path)
    if (child := os.fork()) == 0:
        WholeCheckpointIO().save_checkpoint({"step": 2, "weights": torch.ones(10), "kill": Killed()}, path)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert torch.load(path, weights_only=True) == {"step": 1}
    WholeCheckpointIO().save_checkpoint({"step": 3}, path)
    assert torch.load(path, weights_only=True) == {"step": 3}
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_or_forbidden_place_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"last\.ckpt: cannot be written \(Not a directory\)"):
        WholeCheckpointIO().save_checkpoint({}, tmp_path / "file" / "last.ckpt")


@pytest.mark.parametrize("given", [None, type("Other", (TorchCheckpointIO,), {})])
def test_fits_write_whole_checkpoints_unless_told_how(given: type | None, tmp_path: Path) -> None:
    data = tiny_data()
    batch = next(iter(data.train_dataloader()))
    trainer = fitted(tiny_recommender(data), tmp_path, [batch], plugins=[given()] if given else None)
    assert type(trainer.strategy.checkpoint_io) is (given or WholeCheckpointIO)
