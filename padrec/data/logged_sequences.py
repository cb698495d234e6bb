"""What users did, to train on."""

from padrec.catalog import Catalog, InputError
from padrec.data.splits import Split
from padrec.data.training_rows import TrainingRows
from padrec.data.windows import Windows, cut_windows


class LoggedSequences(TrainingRows):
    """The training items of every user, cut into windows that predict each item once; see `cut_windows`."""

    def windows(self, split: Split, catalog: Catalog, max_history: int, list_length: int) -> Windows:
        """See `TrainingRows`.

        Raises:
            InputError: no user has training items.
        """
        windows = cut_windows(split.train, max_history, list_length)
        if len(windows.starts) == 0:
            raise InputError(f"{split.source}: no user has items to train on, expected some")
        return windows
