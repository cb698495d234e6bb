from pathlib import Path
from typing import cast

import pytest
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger

from padrec.catalog import InputError
from padrec.cli.callbacks import RunFolder


def test_metrics_that_a_logger_would_delete_are_kept(tmp_path: Path) -> None:
    logger = CSVLogger(str(tmp_path), name="run", version="")
    metrics = tmp_path / "run" / "metrics.csv"
    metrics.parent.mkdir()
    metrics.write_text("step,loss")
    trainer = Trainer(logger=logger, accelerator="cpu", enable_progress_bar=False)
    folder = RunFolder(cast(LightningArgumentParser, None), Namespace())  # type: ignore[no-untyped-call]
    with pytest.raises(InputError, match=r"metrics\.csv: of an earlier run, CSVLogger would delete it"):
        folder.setup(trainer, cast(LightningModule, BoringModel()), "test")
    assert metrics.read_text() == "step,loss"
