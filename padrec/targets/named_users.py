"""Errors of decoding that name the user."""

from collections.abc import Iterator
from contextlib import contextmanager

import lightning as L

from padrec.data.batches import PromptBatch, TextPromptBatch
from padrec.decoding import NotFiniteError


@contextmanager
def named_users(module: L.LightningModule, batch: PromptBatch | TextPromptBatch) -> Iterator[None]:
    """Name users where a decoder names rows of a batch, by the keys of the data module of the module's trainer."""
    try:
        yield
    except NotFiniteError as error:
        # Not `trainer`, which raises where a module decodes without one.
        keys = getattr(getattr(module._trainer, "datamodule", None), "user_keys", None)
        if keys is None:
            raise
        users = [(row, int(batch.users[row])) for row in error.rows]
        names = [f"user {keys[user]!r}" if user >= 0 else f"row {row}" for row, user in users]
        raise NotFiniteError(error.rows, names) from None
