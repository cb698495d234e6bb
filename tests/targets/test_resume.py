"""A fit killed by SIGKILL and resumed from its last checkpoint ends as an uninterrupted one."""

import csv
import os
import signal
from pathlib import Path

import pytest
import torch

from padrec.cli import main
from tests.two_processes import PROCESSES

_CONF = Path(__file__).parents[1] / "conf"
_KILLED_AT = 5  # in the middle of the second of three epochs
_ARGUMENTS = [
    "--trainer.max_epochs=3",
    "--trainer.callbacks.init_args.filename={step}",
    "--trainer.callbacks.init_args.every_n_train_steps=2",
    "--trainer.callbacks.init_args.save_top_k=-1",
]
_NOISE = {  # beside the dropout of the configs' target
    "target": "--model.init_args.seed=3",
    "draft": "--model.init_args.feature_noise=0.1",
}


def loss_curve(folder: Path) -> dict[int, float]:
    """Training loss by step."""
    with (folder / "metrics.csv").open() as file:
        return {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]}


def last_checkpoint(folder: Path) -> Path:
    return max(folder.glob("checkpoints/*.ckpt"), key=lambda path: int(path.stem.removeprefix("step=")))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(last_checkpoint(folder), weights_only=True)["state_dict"]
    return state


def fit_to_be_killed(runs: Path, command: list[str]) -> None:
    os.environ["PADREC_TEST_RUNS"] = str(runs)
    main(command)


@pytest.mark.parametrize("stage", ["target", "draft"])
def test_a_killed_fit_resumes_to_the_same_loss_curve(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADREC_TEST_RUNS", str(tmp_path))
    if stage == "draft":
        main(["fit", "--config", str(_CONF / "target.yaml"), "--trainer.max_epochs=1"])

    def command(name: str, *arguments: str) -> list[str]:
        config = str(_CONF / f"{stage}.yaml")
        return [
            *("fit", "--config", config, f"--trainer.logger.init_args.name={name}"),
            *(*_ARGUMENTS, _NOISE[stage], *arguments),
        ]

    main(command("whole"))
    kill = ("--trainer.callbacks+=tests.tiny_training.KillAtStep", f"--trainer.callbacks.init_args.step={_KILLED_AT}")
    killed = PROCESSES.Process(target=fit_to_be_killed, args=(tmp_path, command("killed", *kill)))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    checkpoint = last_checkpoint(tmp_path / "killed")
    assert checkpoint.name == f"step={_KILLED_AT - 1}.ckpt"
    main(command("resumed", f"--ckpt_path={checkpoint}"))

    whole = loss_curve(tmp_path / "whole")
    assert len(whole) == 9
    # The step at whose end the process died was not logged any more.
    assert loss_curve(tmp_path / "killed") == {step: whole[step] for step in range(_KILLED_AT - 1)}
    assert loss_curve(tmp_path / "resumed") == {step: whole[step] for step in range(_KILLED_AT - 1, 9)}
    torch.testing.assert_close(weights(tmp_path / "resumed"), weights(tmp_path / "whole"), rtol=0, atol=0)


def test_a_fit_resumed_after_an_epochs_last_batch_can_be_resumed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADREC_TEST_RUNS", str(tmp_path))

    def fit(name: str, *arguments: str) -> Path:
        every_step = "--trainer.callbacks.init_args.every_n_train_steps=1"
        logger = f"--trainer.logger.init_args.name={name}"
        main(["fit", "--config", str(_CONF / "target.yaml"), *_ARGUMENTS, every_step, logger, *arguments])
        return tmp_path / name

    whole = fit("whole")
    once = fit("once", f"--ckpt_path={whole / 'checkpoints' / 'step=3.ckpt'}")
    twice = fit("twice", f"--ckpt_path={once / 'checkpoints' / 'step=4.ckpt'}")
    assert last_checkpoint(twice).name == last_checkpoint(whole).name == "step=9.ckpt"
    torch.testing.assert_close(weights(twice), weights(whole), rtol=0, atol=0)
