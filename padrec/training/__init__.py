"""What all trained modules share: optimiser and schedule, supervised tokens, checkpoints."""

from typing import TYPE_CHECKING

from padrec.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from padrec.training.checkpoint import check_ids as check_ids
    from padrec.training.checkpoint import read_checkpoint as read_checkpoint
    from padrec.training.checkpoint import stored_catalog as stored_catalog
    from padrec.training.checkpoint import stored_hyperparameters as stored_hyperparameters
    from padrec.training.checkpoint import stored_vocabulary as stored_vocabulary
    from padrec.training.trainable_module import TrainableModule as TrainableModule
    from padrec.training.trainable_module import add_hyperparameter_row as add_hyperparameter_row
    from padrec.training.trainable_module import last_metrics as last_metrics
    from padrec.training.trainable_module import picked as picked
    from padrec.training.trainable_module import rows_of as rows_of
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
