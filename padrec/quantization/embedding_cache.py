"""Embeddings on disk while they are being computed."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from padrec.catalog import InputError
from padrec.catalog.tensor_file import read_tensors, write_tensors
from padrec.catalog.whole_output import PARTIAL, locked, writing, written_whole

_DESCRIPTION_FILE = "embeddings.json"


class EmbeddingCache:
    """A folder of vectors in parts, each written as a whole or not at all; `made_of` is all that they depend on."""

    def __init__(self, folder: Path, n_rows: int, part_size: int, made_of: Mapping[str, str | int]) -> None:
        self._folder = folder
        self._n_rows = n_rows
        self._part_size = part_size
        self._made_of = {**made_of, "part_size": part_size}

    def _check(self) -> None:
        expected, description = self._made_of, self._folder / _DESCRIPTION_FILE
        if not description.exists():
            if any(file.suffix != PARTIAL for file in self._folder.iterdir()):
                raise InputError(f"{self._folder}: holds other files, expected a new or empty folder, or a cache")
            with written_whole(description) as part:
                part.write_text(json.dumps(expected, indent=2) + "\n")
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

        Vectors that depend on something else, other files and a damaged part are an error.
        """
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        with locked(self._folder, wait=True):  # others, such as those of a distributed fit, then read what is there
            self._check()
            return torch.cat(self._parts(compute))

    def _parts(self, compute: Callable[[slice], Tensor]) -> list[Tensor]:
        parts = []
        for number, start in enumerate(range(0, self._n_rows, self._part_size)):
            file = self._folder / f"part-{number:05d}.safetensors"
            rows = slice(start, min(start + self._part_size, self._n_rows))
            if not file.exists():
                write_tensors(file, {"embeddings": compute(rows)})
            try:
                found = read_tensors(file, "embeddings").tensors["embeddings"]
                if len(found) != (expected := rows.stop - rows.start):
                    raise InputError(f"{file}: {len(found)} rows, expected {expected} embeddings")
            except InputError as error:
                raise InputError(f"{error}; remove it to recompute it") from None
            parts.append(found)
        return parts
