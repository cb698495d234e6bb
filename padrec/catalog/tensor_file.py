"""Safetensors files that notice damage."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from padrec.catalog.errors import InputError
from padrec.catalog.whole_output import written_whole

_DIGEST = "sha256"


class TensorFile(NamedTuple):
    """The tensors and texts of a file, by name."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None, overwrite: bool = False
) -> None:
    """Write a safetensors file with a digest of its content in its metadata; see `written_whole`."""
    content = TensorFile(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, {**(metadata or {})}
    )
    with written_whole(path, overwrite) as part:
        save_file(content.tensors, part, content.metadata | {_DIGEST: _digest(content)})


def read_tensors(path: Path, wanted: str | None = None) -> TensorFile:
    """Read a safetensors file; where it has a digest, as `write_tensors` writes it, its content must match.

    `wanted` is a tensor that must be there, and the only one that is read from the file of another program.

    Raises:
        InputError: the file is missing, damaged, no safetensors, or lacks the tensor.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            metadata, names = dict(file.metadata() or {}), sorted(file.keys())
            if wanted is not None and wanted not in names:
                raise InputError(f"{path}: no tensor {wanted!r}, found {', '.join(names)}")
            read = names if wanted is None or _DIGEST in metadata else [wanted]
            tensors = {name: file.get_tensor(name) for name in read}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error})") from None
    expected = metadata.pop(_DIGEST, None)
    found = TensorFile(tensors, metadata)
    if expected is not None and _digest(found) != expected:
        raise InputError(f"{path}: damaged, expected content with SHA-256 {expected[:16]}…, as it was written")
    return found


def _digest(content: TensorFile) -> str:
    digest = hashlib.sha256(repr(sorted(content.metadata.items())).encode())
    for name, tensor in sorted(content.tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
