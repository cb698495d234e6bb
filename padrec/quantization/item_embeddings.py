"""Vectors of items, and the files they lie in."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from padrec.catalog import InputError

_TENSOR = "embeddings"


class ItemEmbeddings:
    """One vector for each item.

    Args:
        keys: the users' own item keys, `[n]`, all different.
        vectors: floating point `[n, d]`, finite; kept as float32.
        texts: titles of the items, `[n]`, or None.
        source: where they come from, named in errors.

    Raises:
        InputError: no items, lengths that differ, a duplicate key, or a value that is not finite.
    """

    def __init__(
        self, keys: Sequence[str], vectors: Tensor, texts: Sequence[str] | None = None, source: str = "embeddings"
    ) -> None:
        if vectors.ndim != 2 or 0 in vectors.shape or not vectors.is_floating_point():
            raise InputError(
                f"{source}: {vectors.dtype} of shape {list(vectors.shape)}, expected floats [items, dimensions]"
            )
        for name, values in (("keys", keys), ("texts", texts)):
            if values is not None and len(values) != len(vectors):
                raise InputError(f"{source}: {len(values)} {name} for {len(vectors)} vectors, expected one for each")
        self.keys = tuple(keys)
        self.vectors = vectors.float()
        self.texts = None if texts is None else tuple(texts)
        self.source = source
        self._check()

    def _check(self) -> None:
        seen: set[str] = set()
        for key in self.keys:
            if key in seen:
                raise InputError(f"{self.source}: item key {key!r} occurs twice, expected every key once")
            seen.add(key)
        # Sums are finite where all summands are, and take no memory.
        finite = self.vectors.sum(1).isfinite()
        if not bool(finite.all()):
            key = self.keys[int((~finite).nonzero()[0])]
            raise InputError(f"{self.source}: the vector of item {key!r} has a value that is not finite")

    def __len__(self) -> int:
        """Number of items."""
        return len(self.keys)

    @property
    def dimension(self) -> int:
        """Values in a vector, d."""
        return self.vectors.shape[1]

    def normalized(self) -> "ItemEmbeddings":
        """The same with vectors of length 1; vectors of zeros stay zeros."""
        return ItemEmbeddings(self.keys, torch.nn.functional.normalize(self.vectors), self.texts, self.source)

    def rows(self, which: Tensor) -> "ItemEmbeddings":
        """Some of the items, by their rows, int64 `[at least one]`."""
        chosen = which.tolist()
        texts = None if self.texts is None else [self.texts[row] for row in chosen]
        return ItemEmbeddings([self.keys[row] for row in chosen], self.vectors[which], texts, self.source)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file and the keys beside it, `<name>.keys.json`.

        Raises:
            InputError: one of the files is there already, or the name does not end in `.safetensors`.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise InputError(f"{path}: expected a name that ends in .safetensors")
        for file in (path, keys_file(path)):
            if file.exists():
                raise InputError(f"{file}: there already, expected no such file")
        path.parent.mkdir(parents=True, exist_ok=True)
        keys_file(path).write_text(json.dumps(self.keys) + "\n", encoding="ascii")
        save_file({_TENSOR: self.vectors.contiguous()}, path)

    @classmethod
    def load(cls, path: str | Path, keys: str | Path | None = None, tensor: str = _TENSOR) -> "ItemEmbeddings":
        """Read a `.safetensors` or `.npy` file and the item keys.

        Args:
            path: the vectors, `[n, d]`; a `.npy` file is mapped into memory, objects in it are refused.
            keys: a JSON list of the items' keys in the order of the vectors; None takes `<name>.keys.json` beside them.
            tensor: which tensor of a safetensors file.

        Raises:
            InputError: a file is missing or malformed, or see `ItemEmbeddings`.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such file, expected embeddings in .safetensors or .npy")
        if path.suffix not in (".safetensors", ".npy"):
            raise InputError(f"{path}: ends in {path.suffix!r}, expected .safetensors or .npy")
        vectors = _read_array(path) if path.suffix == ".npy" else _read_tensor(path, tensor)
        return cls(_read_keys(Path(keys) if keys else keys_file(path)), vectors, source=str(path))


class EmbeddingSource(Protocol):
    """Where item embeddings come from: a file, texts, behaviour, a target on items, or several of these."""

    def embed(self) -> ItemEmbeddings:
        """Read or compute them.

        Raises:
            InputError: what they come from is missing or wrong.
        """
        ...


class EmbeddingFile(EmbeddingSource):
    """Embeddings that another program or `ItemEmbeddings.save` wrote; see `ItemEmbeddings.load`.

    Args:
        path: `.safetensors` or `.npy`.
        keys: JSON list of item keys; None takes `<name>.keys.json` beside the vectors.
        tensor: which tensor of a safetensors file.
    """

    def __init__(self, path: str, keys: str | None = None, tensor: str = _TENSOR) -> None:
        self._path = path
        self._keys = keys
        self._tensor = tensor

    def embed(self) -> ItemEmbeddings:
        """See `EmbeddingSource`."""
        return ItemEmbeddings.load(self._path, self._keys, self._tensor)


class ConcatenatedEmbeddings(EmbeddingSource):
    """Several embeddings of the same items side by side, each vector scaled to length 1 before.

    Args:
        parts: the sources; the first one decides the order of the items.
        weights: the length that each part's vectors get; None is 1 for all.

    Raises:
        InputError: no parts, weights that do not fit them, or parts of different items.
    """

    def __init__(self, parts: list[EmbeddingSource], weights: list[float] | None = None) -> None:
        if not parts or (weights is not None and (len(weights) != len(parts) or min(weights) <= 0)):
            raise InputError(f"{len(parts)} parts with the weights {weights}: expected parts, a positive weight each")
        self._parts = parts
        self._weights = weights or [1.0] * len(parts)

    def embed(self) -> ItemEmbeddings:
        """See `EmbeddingSource`."""
        first, *others = [part.embed().normalized() for part in self._parts]
        vectors = [first.vectors] + [_rows_of(other, first) for other in others]
        weighted = [part * weight for part, weight in zip(vectors, self._weights, strict=True)]
        sources = " + ".join(part.source for part in (first, *others))
        return ItemEmbeddings(first.keys, torch.cat(weighted, dim=1), first.texts, sources)


def keys_file(path: Path) -> Path:
    """Where the keys of a file of vectors lie."""
    return path.with_suffix(".keys.json")


def _rows_of(part: ItemEmbeddings, wanted: ItemEmbeddings) -> Tensor:
    """The vectors of a part in the order of other embeddings."""
    row = {key: index for index, key in enumerate(part.keys)}
    if astray := row.keys() ^ set(wanted.keys):
        raise InputError(
            f"{part.source} and {wanted.source}: item {min(astray)!r} is in one of them only, expected the same items"
        )
    return part.vectors[torch.tensor([row[key] for key in wanted.keys])]


def _read_array(path: Path) -> Tensor:
    try:
        # Copy on write: torch warns of memory that it must not write to.
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    except (ValueError, OSError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as an array of numbers ({error})") from None


def _read_tensor(path: Path, name: str) -> Tensor:
    try:
        with safe_open(path, framework="pt") as file:
            names = sorted(file.keys())
            if name not in names:
                raise InputError(f"{path}: no tensor {name!r}, found {', '.join(names)}")
            tensor: Tensor = file.get_tensor(name)
            return tensor
    except SafetensorError as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error})") from None


def _read_keys(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a JSON list of item keys in the order of the vectors")
    try:
        keys = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: no valid JSON ({error}), expected a list of item keys") from None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise InputError(f"{path}: expected a JSON list of item keys, all of them strings")
    return keys
