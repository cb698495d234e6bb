"""What all trained modules share: optimiser and schedule, supervised tokens, checkpoints."""

from padrec.training.checkpoint import read_checkpoint, stored_hyperparameters, stored_vocabulary
from padrec.training.trainable_module import TrainableModule, picked, rows_of

__all__ = [
    "TrainableModule",
    "picked",
    "read_checkpoint",
    "rows_of",
    "stored_hyperparameters",
    "stored_vocabulary",
]
