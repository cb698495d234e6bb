"""How a command ends its processes."""

import signal
import threading
from types import FrameType

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities.exceptions import SIGTERMException


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
