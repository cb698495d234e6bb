"""Where the rows of a fit come from."""

from typing import Protocol

from padrec.catalog import Catalog
from padrec.data.splits import Split
from padrec.data.windows import Windows


class TrainingRows(Protocol):
    """A source of training rows.

    A source is a class of its own in a file of its own, with primitives as constructor arguments, so that a config can
    name it by `class_path`. Naming this protocol as its parent class makes the class name alone enough there.
    """

    def windows(self, split: Split, catalog: Catalog, max_history: int, list_length: int) -> Windows:
        """Read or cut the rows; called once, before a fit.

        Args:
            split: which items of each user train, validate and test.
            catalog: the items.
            max_history: items of history that a prompt may hold.
            list_length: K, items in a list.

        Raises:
            InputError: there are no rows, or a file is missing or wrong.
        """
        ...
