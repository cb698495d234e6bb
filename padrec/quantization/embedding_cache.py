"""Embeddings on disk while they are being computed."""

import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from padrec.catalog import InputError

_DESCRIPTION_FILE = "embeddings.json"


class EmbeddingCache:
    """A folder of vectors in parts, each written as a whole or not at all.

    Args:
        folder: folder of the parts; created if missing.
        n_rows: number of vectors.
        part_size: vectors in a part.
        made_of: everything that the vectors depend on.

    Raises:
        InputError: the folder holds vectors that depend on something else, or other files.
    """

    def __init__(self, folder: Path, n_rows: int, part_size: int, made_of: Mapping[str, str | int]) -> None:
        self._folder = folder
        self._n_rows = n_rows
        self._part_size = part_size
        self._check({**made_of, "part_size": part_size})

    def _check(self, expected: dict[str, str | int]) -> None:
        description = self._folder / _DESCRIPTION_FILE
        if not description.exists():
            if self._folder.exists() and any(self._folder.iterdir()):
                raise InputError(f"{self._folder}: holds other files, expected a new or empty folder, or a cache")
            self._folder.mkdir(parents=True, exist_ok=True)
            _replace(description, lambda path: path.write_text(json.dumps(expected, indent=2) + "\n"))
            return
        try:
            found = json.loads(description.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{description}: invalid JSON ({error}), remove the folder to recompute") from None
        if found != expected:
            names = [name for name in expected if not isinstance(found, dict) or found.get(name) != expected[name]]
            raise InputError(
                f"{self._folder}: embeddings of another {', '.join(names)}, expected those of this config: "
                "choose another cache folder or remove this one"
            )

    def vectors(self, compute: Callable[[slice], Tensor]) -> Tensor:
        """Return all vectors, `[n_rows, d]`; `compute` gives those of the rows in each missing part.

        Raises:
            InputError: a part is damaged.
        """
        parts = []
        for number, start in enumerate(range(0, self._n_rows, self._part_size)):
            file = self._folder / f"part-{number:05d}.safetensors"
            if not file.exists():
                tensors = {"embeddings": compute(slice(start, start + self._part_size)).contiguous()}
                _replace(file, partial(save_file, tensors))
            try:
                parts.append(load_file(file)["embeddings"])
            except (SafetensorError, KeyError) as error:
                raise InputError(f"{file}: damaged ({error}), remove it to recompute it") from None
        return torch.cat(parts)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write under a temporary name first, so that an interruption leaves no half file."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    write(temporary)
    os.replace(temporary, path)
