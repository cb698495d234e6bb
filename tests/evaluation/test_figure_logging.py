from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from lightning.fabric.loggers.logger import Logger
from lightning.pytorch.loggers import CometLogger, CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from padrec.evaluation import log_figure
from padrec.evaluation.figures import comparison_figures, write_figures
from tests.evaluation.toy_comparison import toy_results


@pytest.fixture(scope="module")
def figure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    figures = comparison_figures(toy_results()[:1])
    return write_figures({"speedup": figures["speedup"]}, tmp_path_factory.mktemp("figures"))["speedup"]


def without_service(kind: type[Logger], **attributes: object) -> Logger:
    """A logger of this kind that reaches no service: whatever it would call is recorded."""
    fake: Logger = type("Fake", (kind,), {"__init__": lambda self: None, **attributes})()
    return fake


def test_tensorboard_shows_the_figure(figure: Path, tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    log_figure(logger, "test/speedup", figure)
    logger.finalize("success")
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    assert events.Tags()["images"] == ["test/speedup"]


@pytest.mark.parametrize(
    ("kind", "call", "expected"),
    [
        (WandbLogger, "log_image", lambda path: ("test/a/speedup", [str(path)])),
        (CometLogger, "experiment.log_image", lambda path: (str(path), "test/a/speedup")),
        (MLFlowLogger, "experiment.log_artifact", lambda path: ("run", str(path), "test/a")),
    ],
)
def test_services_get_the_figure_in_their_own_way(
    kind: type[Logger], call: str, expected: Callable[[Path], tuple[object, ...]], figure: Path
) -> None:
    recorded = Mock()
    outer, _, inner = call.partition(".")
    attribute = SimpleNamespace(**{inner: recorded}) if inner else staticmethod(recorded)
    log_figure(without_service(kind, run_id="run", **{outer: attribute}), "test/a/speedup", figure)
    recorded.assert_called_once_with(*expected(figure))


def test_a_logger_without_images_is_left_alone(figure: Path, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    log_figure(logger, "test/speedup", figure)
    logger.save()
    assert list(tmp_path.rglob("*.png")) == []


def test_weights_and_biases_offline(figure: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    log_figure(logger, "test/speedup", figure)
    logger.experiment.finish()
    assert list(tmp_path.rglob("*.png"))


def test_mlflow_in_a_folder(figure: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # newer versions prefer a database
    logger = MLFlowLogger(tracking_uri=f"file:{tmp_path}")
    log_figure(logger, "test/speedup", figure)
    logger.finalize("success")
    assert list(tmp_path.rglob("test/speedup.png"))
