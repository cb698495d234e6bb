"""Codebooks on disk: what later items need to get semantic IDs by the same codes."""

from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from padrec.catalog import InputError


def write_codebooks(path: Path, codebooks: Sequence[Tensor]) -> None:
    """Write a safetensors file with a tensor `slot_0`, `slot_1`, … for each slot.

    Args:
        path: the file.
        codebooks: code vectors of each slot, `[K, d]`.

    Raises:
        InputError: the file is there already.
    """
    if path.exists():
        raise InputError(f"{path}: there already, expected no such file")
    save_file({f"slot_{slot}": book.cpu().contiguous() for slot, book in enumerate(codebooks)}, path)


def read_codebooks(path: Path) -> list[Tensor]:
    """Read what `write_codebooks` wrote.

    Returns:
        Code vectors of each slot, floating point `[K, d]`.

    Raises:
        InputError: the file is missing or malformed.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected the codebooks that SemanticIDWriter wrote")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error})") from None
    names = [f"slot_{slot}" for slot in range(len(tensors))]
    if not tensors or tensors.keys() != set(names):
        raise InputError(f"{path}: tensors {', '.join(sorted(tensors)) or 'none'}, expected slot_0, slot_1, …")
    codebooks = [tensors[name] for name in names]
    for name, book in zip(names, codebooks, strict=True):
        if book.ndim != 2 or 0 in book.shape or book.shape[1] != codebooks[0].shape[1]:
            raise InputError(f"{path}: {name} of shape {list(book.shape)}, expected [codes, dimensions] as in slot_0")
        if not book.is_floating_point() or not bool(book.isfinite().all()):
            raise InputError(f"{path}: {name} has values that are no finite floats")
    return codebooks
