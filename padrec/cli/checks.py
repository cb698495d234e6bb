"""What is refused before a command starts its work: checkpoints, and callbacks that would wait in vain."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from pydoc import locate
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from padrec.catalog import InputError
from padrec.training import TrainableModule, read_checkpoint


def check_checkpoint(path: str, model: str, settings: Mapping[str, Any]) -> None:
    """Refuse a checkpoint, of `--ckpt_path`, that the model of the config, a class path, cannot go on from.

    `settings` are the arguments of the model that the user gave, without defaults. Those of the checkpoint would win.
    """
    if path in ("best", "last", "hpc"):  # where Lightning finds none, it would go on without
        raise InputError(f"--ckpt_path {path}: expected a file, such as runs/target/checkpoints/{path}.ckpt")
    if ":" in path:  # what Lightning would load with pickle
        raise InputError(f"--ckpt_path {path}: expected a file on this machine; others may hold code")
    if (Path(path) / "config.json").is_file():
        raise InputError(f"{path}: a folder written by save_pretrained, expected a Lightning checkpoint")
    if Path(path).is_dir():  # the shards of a strategy
        return
    stored = read_checkpoint(Path(path)).get("hyper_parameters", {})
    found = stored.get("_class_path")
    if found is None:
        raise InputError(f"{path}: expected a checkpoint saved by `padrec fit`, which names its class")
    if locate(found) is not locate(model):
        raise InputError(f"{path}: a checkpoint of {found}, expected one of the config's model {model}")
    settings = {name: value for name, value in settings.items() if value is not None}  # null leaves it to the model
    if stored.get("pretrained") is not None:  # the arguments of `PretrainedModel` by the names of a checkpoint
        weights = (settings.get("initial_weights") or {}).get("init_args", {})
        renamed = {"path": "pretrained", "lora": "lora"}
        settings = {**settings, **{renamed[name]: value for name, value in weights.items() if name in renamed}}
    differences = list(_differences(settings, stored))
    if differences:
        raise InputError(
            f"{path}: {'; '.join(differences)}. Expected the checkpoint's settings; for others, train a new model, "
            "from these weights by initial_weights"
        )


def _differences(given: Mapping[str, Any], stored: Mapping[str, Any], place: str = "") -> Iterator[str]:
    for name, value in given.items():
        if place and name not in stored:
            yield f"{place}{name} is {value} in the config and not in the checkpoint"
        elif name in stored and isinstance(value, Mapping) and isinstance(stored[name], Mapping):
            yield from _differences(value, stored[name], f"{place}{name}.")
        elif name in stored and _as_lists(value) != _as_lists(stored[name]):
            yield f"{place}{name} is {value} in the config and {stored[name]} in the checkpoint"


def _as_lists(value: object) -> object:
    return [_as_lists(part) for part in value] if isinstance(value, (list, tuple)) else value


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
