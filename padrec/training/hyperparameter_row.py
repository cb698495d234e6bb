"""A run's row in TensorBoard's table of hyperparameters."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger


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
