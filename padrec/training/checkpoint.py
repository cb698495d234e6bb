"""Reading the Lightning checkpoints of padrec modules."""

from pathlib import Path
from typing import Any

import torch

from padrec.catalog import InputError, SemanticIDVocabulary


def read_checkpoint(path: Path, kind: str | None = None) -> dict[str, Any]:
    """Read a Lightning checkpoint of a padrec module, tensors and primitives only.

    Args:
        path: the file.
        kind: of the module, as it stores it: `target`, `draft` or `quantizer`; None takes any.

    Raises:
        InputError: no such file, not a checkpoint, or one of another kind of module.
    """
    if not path.is_file():
        expected = f"the checkpoint or folder of a {kind}" if kind else "a checkpoint"
        raise InputError(f"{path}: no such file, expected {expected}")
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the bytes happen to mean to the unpickler
        raise InputError(f"{path}: cannot be read as a Lightning checkpoint of tensors and primitives") from error
    if not isinstance(checkpoint, dict):
        raise InputError(f"{path}: holds a {type(checkpoint).__name__}, expected a checkpoint")
    found = checkpoint.get("kind")
    if found is None or found != (kind or found):
        raise InputError(
            f"{path}: a checkpoint of kind {found!r}, expected {repr(kind) if kind else 'that of a padrec module'}"
        )
    return checkpoint


def stored_hyperparameters(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The constructor arguments that a checkpoint holds, without what LightningCLI adds to them."""
    return {name: value for name, value in checkpoint["hyper_parameters"].items() if not name.startswith("_")}


def stored_vocabulary(checkpoint: dict[str, Any], kind: str) -> SemanticIDVocabulary:
    """The vocabulary that a checkpoint was trained with.

    Args:
        checkpoint: of a `target` or a `draft`.
        kind: which of them is expected.

    Raises:
        InputError: a checkpoint of another kind.
    """
    if checkpoint.get("kind") != kind:
        raise InputError(f"a checkpoint of kind {checkpoint.get('kind')!r}, expected {kind!r}")
    return SemanticIDVocabulary(**checkpoint["vocabulary"])
