"""What every run does beside its work: keep its folder, and end its processes."""

import signal
import threading
from pathlib import Path
from types import FrameType

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities.exceptions import SIGTERMException

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


class Termination(Callback):
    """Ends a command at once on SIGTERM, and where it fails the processes that it has started.

    Lightning's own handler waits for the end of a batch in fits and of everything in predictions; on several processes
    it starts a collective operation, in which a process that alone was told to end waits for ever. So would the
    processes that a failed one has started.
    """

    def _listen(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def end(number: int, frame: FrameType | None) -> None:
            raise SIGTERMException

        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, end)

    # After Lightning has registered its handler; it restores the original one itself.
    on_train_start = on_validation_start = on_test_start = on_predict_start = _listen

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Kill the processes that this one has started."""
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            launcher.kill(signal.SIGKILL)
