"""Figures handed to a logger in the way of its kind."""

from functools import singledispatch
from pathlib import Path

from lightning.fabric.loggers.logger import Logger
from lightning.pytorch.loggers import CometLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from matplotlib.image import imread


@singledispatch
def log_figure(logger: Logger, name: str, path: Path) -> None:
    """Log a figure, if the logger takes images; the PNG file stays beside the report either way.

    Loggers have no common method for images. `@log_figure.register` adds a kind of logger.

    Args:
        logger: one of the trainer's loggers.
        name: the figure's name, as `test/speedup`.
        path: its PNG file.
    """


@log_figure.register
def _(logger: TensorBoardLogger, name: str, path: Path) -> None:
    logger.experiment.add_image(name, imread(path), dataformats="HWC")


@log_figure.register
def _(logger: WandbLogger, name: str, path: Path) -> None:
    logger.log_image(name, [str(path)])


@log_figure.register
def _(logger: MLFlowLogger, name: str, path: Path) -> None:
    folder, _, _ = name.rpartition("/")
    logger.experiment.log_artifact(logger.run_id, str(path), folder)


@log_figure.register
def _(logger: CometLogger, name: str, path: Path) -> None:
    logger.experiment.log_image(str(path), name)
