"""Codebooks of residual quantization: codes found by them, and their file, which gives later items IDs."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from padrec.catalog import InputError
from padrec.catalog.tensor_file import read_tensors, write_tensors
from padrec.quantization.k_means import squared_distances


def nearest_codes(vectors: Tensor, codebooks: Sequence[Tensor]) -> Tensor:
    """The nearest code, of codebooks `[K, d]`, to each residual of vectors `[n, d]`, slot by slot, int64 `[n, L]`."""
    codes = []
    for book in codebooks:
        codes.append(squared_distances(vectors, book).argmin(1))
        vectors = vectors - book[codes[-1]]
    return torch.stack(codes, dim=1)


def prefix_distances(vectors: Tensor, codebooks: Sequence[Tensor], prefix: Tensor) -> Tensor:
    """Squared distances of residuals to the codes of the slot after a prefix `[n, l]`, `[n, K]`."""
    for book, codes in zip(codebooks, prefix.to(vectors.device).long().unbind(1), strict=False):
        vectors = vectors - book[codes]
    return squared_distances(vectors, codebooks[prefix.shape[1]])


def sum_of_codes(codebooks: Sequence[Tensor], codes: Tensor) -> Tensor:
    """Sum of the code vectors of each item's codes in the first slots (int64 `[n, l]`), `[n, d]`."""
    slots = codes.to(codebooks[0].device).unbind(1)
    return torch.stack([book[slot] for book, slot in zip(codebooks, slots, strict=False)]).sum(0)


def write_codebooks(path: Path, codebooks: Sequence[Tensor]) -> None:
    """Write a safetensors file with the tensors `slot_0`, `slot_1`, …, each `[K, d]`."""
    write_tensors(path, {f"slot_{slot}": book for slot, book in enumerate(codebooks)})


def read_codebooks(path: Path) -> list[Tensor]:
    """Read the code vectors of each slot, floating point `[K, d]`, that `write_codebooks` wrote, or refuse the file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected codebooks written by SemanticIDWriter")
    tensors = read_tensors(path).tensors
    names = [f"slot_{slot}" for slot in range(len(tensors))]
    if not tensors or tensors.keys() != set(names):
        raise InputError(f"{path}: tensors {', '.join(sorted(tensors)) or 'none'}, expected slot_0, slot_1, …")
    codebooks = [tensors[name] for name in names]
    for name, book in zip(names, codebooks, strict=True):
        if book.ndim != 2 or 0 in book.shape or book.shape[1] != codebooks[0].shape[1]:
            raise InputError(f"{path}: {name} of shape {list(book.shape)}, expected [codes, dimensions] as in slot_0")
        if not book.is_floating_point() or not bool(book.isfinite().all()):
            raise InputError(f"{path}: {name} has values that are not finite floats")
    return codebooks
