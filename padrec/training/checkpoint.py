"""Reading the Lightning checkpoints of padrec modules, without Lightning."""

import zipfile
from pathlib import Path
from typing import Any

import torch

from padrec.catalog import Catalog, InputError, SemanticIDVocabulary


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
