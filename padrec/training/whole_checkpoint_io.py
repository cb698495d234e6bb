"""Checkpoints that appear as a whole or not at all, and are read only where they still are whole."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from padrec.catalog.whole_output import written_whole
from padrec.training.checkpoint import check_undamaged


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it, so that the one before it stays until the new one is whole.

    Lightning writes to the temporary directory. Where that is on another file system, the move is a copy into the old
    checkpoint, and a kill meanwhile leaves neither.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: object = None) -> None:
        """Write a checkpoint; an address of a remote file system is left to Lightning."""
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with written_whole(Path(path), overwrite=True) as part, part.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # the zip file cannot be closed after the system's error
                    raise error.__context__ from None
                raise

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a checkpoint that is not damaged."""
        if Path(path).is_file():
            check_undamaged(Path(path))
        return super().load_checkpoint(path, *args, **kwargs)
