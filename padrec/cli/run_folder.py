"""The folder of a run, which keeps what earlier runs left in it."""

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger

from padrec.catalog import InputError


class RunFolder(SaveConfigCallback):
    """Saves the resolved config beside what the logger writes, and replaces neither configs nor checkpoints.

    The config of a later command, or of a resumed fit, is `config-2.yaml`, `config-3.yaml`, and so on.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save the config; without a logger there is no folder for it."""
        folder, number = Path(trainer.log_dir or ""), 1
        if stage == "fit" and self.config.get("ckpt_path") is None:
            _check_no_checkpoints(trainer, folder)
        for logger in trainer.loggers:
            if isinstance(logger, CSVLogger) and (metrics := Path(logger.log_dir) / "metrics.csv").exists():
                raise InputError(f"{metrics}: of an earlier run, CSVLogger would delete it; name another version")
        if not trainer.loggers:
            return
        while (folder / self.config_filename).exists() and not self.already_saved:
            number += 1
            self.config_filename = f"config-{number}.yaml"
        super().setup(trainer, pl_module, stage)


def _check_no_checkpoints(trainer: Trainer, log_folder: Path) -> None:
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint):
            folder = Path(callback.dirpath or log_folder / "checkpoints")
            if any(folder.glob("*.ckpt")):
                raise InputError(
                    f"{folder}: checkpoints of another fit, on which drafts may depend; expected none: name another "
                    "trainer.logger.init_args.name, resume with --ckpt_path, or move them away"
                )
