"""Lightning checkpoints of padrec modules, which appear as a whole and are read only where they still are whole."""

import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from padrec.catalog import Catalog, InputError, SemanticIDVocabulary
from padrec.catalog.whole_output import written_whole


def read_checkpoint(path: Path, kind: str | None = None) -> dict[str, Any]:
    """Read a Lightning checkpoint of a padrec module, tensors and primitives only.

    Raises:
        InputError: the file is missing, damaged, or not a checkpoint, or holds another kind of module than `target`,
            `draft` and so on, if one is given.
    """
    if not path.is_file():
        expected = f"the checkpoint or folder of a {kind}" if kind else "a checkpoint"
        raise InputError(f"{path}: no such file, expected {expected}")
    check_undamaged(path)
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises anything on arbitrary bytes
        raise InputError(f"{path}: cannot be read as a Lightning checkpoint of tensors and primitives") from error
    if not isinstance(checkpoint, dict):
        raise InputError(f"{path}: holds a {type(checkpoint).__name__}, expected a checkpoint")
    found = checkpoint.get("kind")
    if found is None or found != (kind or found):
        expected = repr(kind) if kind else "that of a padrec module"
        raise InputError(f"{path}: a checkpoint of kind {found!r}, expected {expected}")
    return checkpoint


def check_undamaged(path: Path) -> None:
    """Refuse a checkpoint whose content differs from its checksums, which PyTorch writes but does not look at."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # arbitrary bytes raise anything
        raise InputError(f"{path}: cannot be read as a Lightning checkpoint ({error})") from None
    if damaged is not None:
        raise InputError(f"{path}: damaged in {damaged}, expected it as it was written")


def stored_hyperparameters(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's constructor arguments, without those that LightningCLI adds."""
    return {name: value for name, value in checkpoint["hyper_parameters"].items() if not name.startswith("_")}


def stored_vocabulary(checkpoint: dict[str, Any], kind: str) -> SemanticIDVocabulary:
    """The vocabulary of a checkpoint of a target or a draft; one of another kind is refused."""
    if checkpoint.get("kind") != kind:
        raise InputError(f"a checkpoint of kind {checkpoint.get('kind')!r}, expected {kind!r}")
    return SemanticIDVocabulary.of_dict(checkpoint["vocabulary"], f"the checkpoint of a {kind}")


def stored_catalog(checkpoint: dict[str, Any]) -> Catalog | None:
    """The catalog of a `target` or a `draft` checkpoint; None where it was trained without."""
    return Catalog.from_state(checkpoint["catalog"]) if "catalog" in checkpoint else None


def check_ids(catalog: Catalog | None, known: Catalog | None, owner: str) -> None:
    """Check the semantic IDs of a catalog where both are there; see `Catalog.check_ids`."""
    if catalog is not None and known is not None:
        catalog.check_ids(known, owner)


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
