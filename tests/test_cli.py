"""The program itself: every stage on tiny data, and what wrong input gets to read."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from padrec.cli import main
from padrec.drafts import PADRecDraft
from padrec.targets import TargetRecommender
from tests.tiny_training import quiet_trainer, tiny_data, tiny_recommender

_REPOSITORY = Path(__file__).parents[1]
_CONF = Path(__file__).parent / "conf"
_EXPERIMENTS = _REPOSITORY / "experiments"
_FLAVOURS = {
    "padrec": "",
    "hass": "--model.init_args.slot_embeddings=false --model.init_args.step_embeddings=false",
    "eagle": "--model.init_args.slot_embeddings=false --model.init_args.step_embeddings=false "
    "--model.init_args.unrolled_steps=1 --model.init_args.feature_noise=0.1",
}


def run(stage: str, config: str, arguments: str = "") -> None:
    """`padrec STAGE --config tests/conf/CONFIG.yaml ARGUMENTS`."""
    main([stage, "--config", str(_CONF / f"{config}.yaml"), *shlex.split(arguments)])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a trained target and the three drafts, the first of which has its own target folder beside it."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PADREC_TEST_RUNS", str(folder))
        run("fit", "target")
        for name, flags in _FLAVOURS.items():
            run("fit", "draft", f"--trainer.logger.init_args.name={name} {flags}")
    return folder


@pytest.fixture(autouse=True)
def runs_folder(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configs find the trained stages."""
    monkeypatch.setenv("PADREC_TEST_RUNS", str(runs))


def checkpoint(runs: Path, stage: str) -> Path:
    return runs / stage / "checkpoints" / "last.ckpt"


def read_checkpoint(runs: Path, stage: str) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(checkpoint(runs, stage), weights_only=True)
    return content


def logged(folder: Path, name: str) -> list[float]:
    """A metric's values in the order of steps."""
    header, *rows = (line.split(",") for line in (folder / "metrics.csv").read_text().splitlines())
    column = header.index(name)
    return [float(row[column]) for row in rows if row[column]]


def test_training_a_target_logs_losses_and_ranking(runs: Path) -> None:
    losses = logged(runs / "target", "train/loss")
    assert len(losses) == 12
    assert losses[-1] < losses[0]
    for name in ("val/ndcg@5", "val/ndcg@10", "val/recall@5", "val/recall@10"):
        assert len(logged(runs / "target", name)) == 4


@pytest.mark.parametrize("name", _FLAVOURS)
def test_training_a_draft_logs_losses_and_acceptance(name: str, runs: Path) -> None:
    assert len(logged(runs / name, "train/loss")) == 6
    assert len(logged(runs / name, "val/acceptance_length")) == 2
    assert min(logged(runs / name, "val/acceptance_length")) >= 1
    settings = read_checkpoint(runs, name)["settings"]
    assert settings["n_steps"] == (1 if name == "eagle" else 3)
    assert settings["slot_embeddings"] == settings["step_embeddings"] == (name == "padrec")


def test_sizes_reach_the_models_from_the_data(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[TargetRecommender | PADRecDraft] = []

    def recording(build: Callable[..., None]) -> Callable[..., None]:
        def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
            build(self, *args, **kwargs)
            built.append(self)

        return wrapper

    data = "--data.init_args.list_length=3 --trainer.max_steps=1 --trainer.limit_val_batches=1"
    for model in (TargetRecommender, PADRecDraft):
        monkeypatch.setattr(model, "configure_optimizers", recording_optimizers(model, built))
    run("fit", "target", f"{data} --trainer.logger=false --trainer.default_root_dir={runs / 'links'}")
    run("fit", "draft", f"{data} --trainer.logger=false --trainer.default_root_dir={runs / 'links'}")
    assert [type(model) for model in built] == [TargetRecommender, PADRecDraft]
    for model in built:
        assert model.vocabulary.codebook_sizes == (5, 6, 7)
        assert model.catalog is not None
        assert model.catalog.n_items == 30
        assert model.list_length == 3
