"""Errors of decoding that name the user."""

from collections.abc import Iterator
from contextlib import contextmanager

import lightning as L

from padrec.data.batches import PromptBatch, TextPromptBatch
from padrec.decoding import NotFiniteError


@contextmanager
def named_users(module: L.LightningModule, batch: PromptBatch | TextPromptBatch) -> Iterator[None]:
    """Name users where a decoder names rows of a batch.

    Args:
        module: the one that decodes; its trainer has the data module, which knows the users' keys.
        batch: what it decodes.

    Raises:
        NotFiniteError: the target's logits for some users are not finite.
    """
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
