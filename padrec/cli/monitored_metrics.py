"""Metrics that the callbacks of a fit wait for."""

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from padrec.catalog import InputError
from padrec.training import TrainableModule


def check_monitored(trainer: Trainer, model: LightningModule) -> None:
    """Refuse a callback that monitors what this fit never logs, before anything is trained."""
    if not isinstance(model, TrainableModule):  # only ours say what they log
        return
    validates = _validates(trainer)
    names = {name for name in model.metric_names() if validates or not name.startswith("val/")}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # the trainer does not declare it
        monitored = getattr(callback, "monitor", None)
        if monitored is not None and monitored not in names | {"epoch", "step"}:
            fit = "this fit" if validates else "this fit, which never validates,"
            expected = ", ".join(sorted(names))
            raise InputError(f"{type(callback).__name__} monitors {monitored!r}: {fit} logs only {expected}")


def check_saved(trainer: Trainer) -> None:
    """Report a fit that has saved no checkpoint because its metric never came, as with `max_steps` within an epoch."""
    for callback in trainer.checkpoint_callbacks:
        if not isinstance(callback, ModelCheckpoint) or callback.monitor is None or callback.save_top_k == 0:
            continue
        if callback.monitor not in trainer.callback_metrics and trainer.global_step > 0:
            raise InputError(
                f"ModelCheckpoint saved nothing: {callback.monitor!r}, which it monitors, was not logged before the "
                "fit ended; expected a shorter trainer.val_check_interval, or another metric"
            )


def _validates(trainer: Trainer) -> bool:
    every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
    reached = every is None or epochs is None or epochs < 0 or every <= epochs
    return reached and trainer.limit_val_batches > 0
