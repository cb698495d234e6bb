"""The base of trained modules: optimiser, schedule, reproducible noise, exact means over processes."""

import math

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from padrec.catalog import InputError
from padrec.training.hyperparameter_row import add_hyperparameter_row


class TrainableModule(L.LightningModule):
    """AdamW with linear warm-up and cosine decay to zero, shared by all training modules.

    Args:
        learning_rate: peak learning rate.
        weight_decay: for matrices; vectors and embeddings are never decayed.
        warmup_steps: optimiser steps until the peak.
        seed: for all randomness in training steps, such as dropout.

    Raises:
        InputError: a value is out of range.
    """

    def __init__(self, *, learning_rate: float, weight_decay: float, warmup_steps: int, seed: int) -> None:
        super().__init__()
        if learning_rate <= 0 or weight_decay < 0 or warmup_steps < 0:
            raise InputError(
                f"learning_rate {learning_rate}, weight_decay {weight_decay}, warmup_steps {warmup_steps}: "
                "expected a positive rate and nothing negative"
            )
        self._learning_rate = learning_rate
        self._weight_decay = weight_decay
        self._warmup_steps = warmup_steps
        self._seed = seed

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

    def on_train_batch_start(self, batch: object, batch_idx: int) -> None:
        """Seed each step by its number, so that a resumed fit repeats an uninterrupted one."""
        torch.manual_seed((self._seed * 1_000_003 + self.global_step) * 1009 + self.global_rank)

    def on_train_end(self) -> None:
        """Enter the fit in TensorBoard's table of hyperparameters."""
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger) and self.trainer.is_global_zero:
                add_hyperparameter_row(logger, {"model": type(self).__name__, **self.hparams})

    def logs_are_due(self) -> bool:
        """Whether the logger records this step; otherwise, skip values computed only for it."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # the trainer does not declare it
        return every > 0 and (self.global_step + 1) % every == 0

    def mean_over_tokens(self, total: Tensor, count: Tensor) -> Tensor:
        """The mean whose gradient, averaged over processes, equals the global batch's.

        Args:
            total: a loss summed over this process's tokens, scalar.
            count: number of these tokens, scalar.
        """
        all_tokens = self.trainer.strategy.reduce(count.detach().float(), reduce_op="sum")
        return total * self.trainer.world_size / torch.as_tensor(all_tokens).clamp(min=1)


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
