"""The base of trained modules: optimiser, schedule, reproducible noise, exact means over processes."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.types import STEP_OUTPUT, OptimizerLRSchedulerConfig
from torch import Tensor, nn

from padrec.catalog import InputError, NonNegativeFloat, NonNegativeInt, PositiveFloat, Seed, check_arguments
from padrec.catalog.whole_output import check_place
from padrec.training.whole_checkpoint_io import WholeCheckpointIO


class TrainableModule(L.LightningModule):
    """AdamW with linear warm-up and cosine decay to zero, shared by all training modules.

    With `accumulate_grad_batches` the batches of a step count by their tokens, as in one large batch. A fit whose loss
    is not finite ends with an error: at the next logged step, validation or checkpoint, or at the epoch's end.

    Args:
        learning_rate: peak learning rate.
        weight_decay: for matrices; vectors and embeddings are never decayed.
        warmup_steps: optimiser steps until the peak.
        seed: for all randomness in training steps, such as dropout.
    """

    def __init__(
        self, *, learning_rate: PositiveFloat, weight_decay: NonNegativeFloat, warmup_steps: NonNegativeInt, seed: Seed
    ) -> None:
        check_arguments(TrainableModule, locals())
        super().__init__()
        self._learning_rate = learning_rate
        self._weight_decay = weight_decay
        self._warmup_steps = warmup_steps
        self._seed = seed
        self._finite: Tensor | None = None  # whether all losses were, on the device: reading it waits for the device
        self._batch_tokens: Tensor | None = None
        self._step_tokens: list[Tensor] = []  # of each batch of an optimiser step that accumulates several

    def metric_names(self) -> set[str]:
        """Names of what a fit logs, training and validation, for callbacks to monitor."""
        return {"train/loss"}

    def setup(self, stage: str) -> None:
        """Write checkpoints as a whole, unless the trainer has another way; refuse a place that cannot be written."""
        strategy = self.trainer.strategy
        if type(strategy.checkpoint_io) is TorchCheckpointIO:
            strategy.checkpoint_io = WholeCheckpointIO()
        for callback in self.trainer.checkpoint_callbacks if stage == "fit" else ():
            folder = getattr(callback, "dirpath", None)
            if folder is not None and "://" not in folder:  # on this machine
                check_place(Path(folder) / "checkpoint")

    def trainable_module(self) -> nn.Module:
        """The module to train."""
        return self

    def undecayed_modules(self) -> list[nn.Module]:
        """Modules without weight decay."""
        return [module for module in self.trainable_module().modules() if isinstance(module, nn.Embedding)]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW and its schedule, stepped after every batch."""
        undecayed = {id(parameter) for module in self.undecayed_modules() for parameter in module.parameters()}
        trained = [parameter for parameter in self.trainable_module().parameters() if parameter.requires_grad]
        decayed = [parameter for parameter in trained if parameter.ndim >= 2 and id(parameter) not in undecayed]
        free = [parameter for parameter in trained if parameter.ndim < 2 or id(parameter) in undecayed]
        groups = [{"params": decayed, "weight_decay": self._weight_decay}, {"params": free, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self._learning_rate, betas=(0.9, 0.95))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        if step < self._warmup_steps:
            return (step + 1) / self._warmup_steps
        if step == self._warmup_steps:
            return 1.0
        # Not earlier: while optimisers are configured, this would set up the training data before a resumed fit has
        # restored its place in them, and the epoch would start again.
        total = self.trainer.estimated_stepping_batches
        if math.isinf(total):  # endless training, such as max_epochs: -1, keeps the peak
            return 1.0
        progress = (step - self._warmup_steps) / max(1, total - self._warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def on_fit_start(self) -> None:
        """Forget the losses and the unfinished step of an earlier fit."""
        self._finite = None
        self._step_tokens.clear()

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        """Seed each batch by its number, so that a resumed fit repeats an uninterrupted one."""
        number = self.trainer.fit_loop.total_batch_idx
        torch.manual_seed((self._seed * 1_000_003 + number) * 1009 + self.global_rank)
        self._batch_tokens = None
        # Lightning does not count the epoch that follows a checkpoint of an epoch's last batch, so that checkpoints of
        # the resumed fit would resume in the wrong place.
        progress = self.trainer.fit_loop.epoch_progress
        for count in (progress.current, progress.total):
            count.ready = count.started = count.processed + 1  # type: ignore[attr-defined]  # of a subclass

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Weight a batch by its share of its optimiser step's tokens."""
        finite = loss.detach().isfinite()
        self._finite = finite if self._finite is None else self._finite & finite
        if self.trainer.accumulate_grad_batches > 1 and self._batch_tokens is not None:
            self._step_tokens.append(self._batch_tokens)
            # Relative to the first batch, since the step's tokens are not known yet.
            loss = loss * self._batch_tokens / self._step_tokens[0].clamp(min=1)
        super().backward(loss, *args, **kwargs)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Turn the sum of the weighted batches into their mean."""
        if not self._step_tokens:
            return
        batches, total = self.trainer.accumulate_grad_batches, torch.stack(self._step_tokens).sum()
        factor = batches * self._step_tokens[0].clamp(min=1) / total.clamp(min=1)
        for parameter in self.trainable_module().parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(factor)
        self._step_tokens.clear()

    def on_train_batch_end(self, outputs: STEP_OUTPUT, batch: object, batch_idx: int) -> None:
        """Check the loss where a step is logged, which waits for the device anyway."""
        if self._logs(self.global_step):
            self.check_loss()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the loss: no checkpoint replaces a good one after it."""
        self.check_loss()

    def check_loss(self) -> None:
        """Check that all losses so far are finite, those of other processes too, which call this at the same step."""
        if self._finite is None:
            return
        diverged = torch.as_tensor(self.trainer.strategy.reduce((~self._finite).float(), reduce_op="sum"))
        if float(diverged) > 0:
            advice = f"lower learning_rate ({self._learning_rate}), or set trainer.gradient_clip_val"
            found = f"the training loss is not finite by step {self.global_step}"
            raise InputError(f"{found}: expected a finite one; {advice}")

    on_validation_start = on_train_epoch_end = check_loss

    def on_train_end(self) -> None:
        """Enter the fit in TensorBoard's table of hyperparameters."""
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger) and self.trainer.is_global_zero:
                add_hyperparameter_row(logger, {"model": type(self).__name__, **self.hparams})

    def logs_are_due(self) -> bool:
        """Whether the logger records this step; otherwise, skip values computed only for it."""
        return self._logs(self.global_step + 1)

    def _logs(self, step: int) -> bool:
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # the trainer does not declare it
        return every > 0 and step % every == 0

    def mean_over_tokens(self, total: Tensor, count: Tensor) -> Tensor:
        """The mean whose gradient, averaged over processes, equals the global batch's.

        `total` is a loss summed over the `count` tokens of this process; all are scalars.
        """
        all_tokens = self.trainer.strategy.reduce(count.detach().float(), reduce_op="sum")
        tokens = torch.as_tensor(all_tokens)
        if self._batch_tokens is None:  # the first loss of a batch tells its weight
            self._batch_tokens = tokens
        return total * self.trainer.world_size / tokens.clamp(min=1)


def add_hyperparameter_row(board: TensorBoardLogger, hyperparameters: Mapping[str, Any]) -> None:
    """Show a run's hyperparameters beside its scalars; call it on the process that writes, after a scalar.

    Unlike `log_hyperparams` it writes no list of columns: TensorBoard takes the first that it finds for all runs, and
    fits and evaluations would hide one another's. Without any it collects the columns of all runs. Hyperparameters that
    are no plain values, or private, are left out.
    """
    from torch.utils.tensorboard.summary import hparams  # loads tensorboard, which other commands do without

    plain = {name: value for name, value in hyperparameters.items() if isinstance(value, str | int | float)}
    shown = {name: value for name, value in plain.items() if not name.startswith("_")}
    writer = board.experiment.file_writer
    if writer is not None:
        _, start, end = hparams(shown, {})
        writer.add_summary(start)
        writer.add_summary(end)


def last_metrics(trainer: L.Trainer) -> dict[str, float]:
    """The loss and the validation metrics with which a fit ended, by name."""
    values = trainer.callback_metrics
    return {name: float(values[name]) for name in values if name == "train/loss" or name.startswith("val/")}


def rows_of(mask: Tensor) -> Tensor:
    """Flat indices `b T + t` of True in a mask `[B, T]`, int64 `[M]`.

    Synchronises the device, like any indexing by a mask; a step calls it once, early, when little is pending.
    """
    return mask.flatten().nonzero().squeeze(1)


def picked(values: Tensor, rows: Tensor) -> Tensor:
    """Values `[B, T, *]` at the flat indices that `rows_of` returned: `[M, *]`."""
    return values.flatten(0, 1).index_select(0, rows)
