"""Training and validation of targets and drafts give on two processes what they give on one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from padrec.data import SemanticIDDataModule
from padrec.training import TrainableModule
from tests.tiny_training import quiet_trainer, tiny_atspeed, tiny_data, tiny_draft, tiny_recommender
from tests.two_processes import on_two_processes

Results = dict[str, dict[str, Tensor]]


def data_and_modules(target: Path) -> dict[str, tuple[SemanticIDDataModule, TrainableModule]]:
    # 31 rows in batches of 10: the last batch has one row, so that the second process has none of its own.
    # 5 users in batches of 2: the last one is filled up; of a single user, the second process has nothing at all.
    data = tiny_data(batch_size=10, eval_batch_size=2, max_users=5)
    lone_user = tiny_data(batch_size=10, max_users=1)
    return {
        "target": (data, tiny_recommender(data)),
        "draft": (data, tiny_draft(data, target)),
        "draft for one user": (lone_user, tiny_draft(lone_user, target)),
        "AtSpeed draft": (data, tiny_atspeed(data, target)),
    }


def fit_all(folder: Path, target: Path, **arguments: Any) -> Results:
    """Weights and metrics after two epochs."""
    results = {}
    for name, (data, module) in data_and_modules(target).items():
        trainer = quiet_trainer(folder, max_epochs=2, gradient_clip_val=0.5, **arguments)
        trainer.fit(module, datamodule=data)
        metrics = {metric: torch.as_tensor(value) for metric, value in trainer.callback_metrics.items()}
        results[name] = {**module.trainable_module().state_dict(), **metrics}
    return results


def run_process(rank: int, folder: Path, target: Path) -> None:
    torch.save(fit_all(folder, target, strategy="ddp", devices=2), folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, list[Results]]:
    """Of one process, and of each of two processes."""
    folder = tmp_path_factory.mktemp("two_processes")
    tiny_recommender(tiny_data()).save_pretrained(folder / "target")
    on_two_processes(run_process, folder, folder / "target")
    of_two = [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]
    return fit_all(folder, folder / "target"), of_two


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("target", "val/ndcg@5"),
        ("draft", "val/acceptance_length"),
        ("draft for one user", "val/acceptance_length"),
        ("AtSpeed draft", "val/accepted_steps"),
    ],
)
def test_two_processes_train_and_validate_as_one(
    name: str, metric: str, results: tuple[Results, list[Results]]
) -> None:
    of_one, of_two = results
    expected = of_one[name]
    assert metric in expected
    assert not any(value.isnan().any() for value in expected.values())
    for of_process in of_two:
        torch.testing.assert_close(of_process[name], expected, rtol=0, atol=1e-5)
