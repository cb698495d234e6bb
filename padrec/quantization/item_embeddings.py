"""Vectors of items, and the files that hold them."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from padrec.catalog import InputError

_LOG = logging.getLogger(__name__)
_TENSOR = "embeddings"


class ItemEmbeddings:
    """One vector for each item.

    Args:
        keys: the users' own item keys, `[n]`, all distinct.
        vectors: finite floating point `[n, d]`; kept as float32.
        texts: titles of the items, `[n]`, or None.
        source: origin of the embeddings, named in errors.

    Raises:
        InputError: no items, different lengths, a duplicate key, or a value that is not finite.
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
        self.keys, self.texts = tuple(keys), None if texts is None else tuple(texts)
        self.vectors, self.source = vectors.float(), source
        key, count = Counter(self.keys).most_common(1)[0]
        if count > 1:
            raise InputError(f"{source}: item key {key!r} occurs twice, expected every key once")
        # A sum is finite if its summands are, and takes no memory.
        if len(wrong := (~self.vectors.sum(1).isfinite()).nonzero()):
            raise InputError(
                f"{source}: the vector of item {self.keys[int(wrong[0])]!r} has a value that is not finite"
            )

    def __len__(self) -> int:
        """Number of items."""
        return len(self.keys)

    @property
    def dimension(self) -> int:
        """Values in a vector, d."""
        return self.vectors.shape[1]

    def rows(self, which: Tensor) -> "ItemEmbeddings":
        """Select at least one item by row, int64."""
        chosen = which.tolist()
        texts = None if self.texts is None else [self.texts[row] for row in chosen]
        return ItemEmbeddings([self.keys[row] for row in chosen], self.vectors[which], texts, self.source)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file and, beside it, the keys as `<name>.keys.json`.

        Raises:
            InputError: a file already exists, or the name does not end in `.safetensors`.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise InputError(f"{path}: expected a name that ends in .safetensors")
        for file in (path, _keys_file(path)):
            if file.exists():
                raise InputError(f"{file}: already exists")
        path.parent.mkdir(parents=True, exist_ok=True)
        _keys_file(path).write_text(json.dumps(self.keys) + "\n", encoding="ascii")
        save_file({_TENSOR: self.vectors.contiguous()}, path)


class EmbeddingSource(Protocol):
    """A source of item embeddings: a file, texts, behaviour, a target, or several of these."""

    def embed(self) -> ItemEmbeddings:
        """Read or compute the embeddings.

        Raises:
            InputError: the input is missing or wrong.
        """
        ...


@dataclass(frozen=True)
class EmbeddingFile(EmbeddingSource):
    """Embeddings written by another program or `ItemEmbeddings.save`.

    Args:
        path: `.safetensors` or `.npy` file, `[n, d]`; a `.npy` file is memory-mapped and must not hold objects.
        keys: JSON list of item keys in the order of the vectors; None takes `<name>.keys.json` beside the vectors.
        tensor: name of the tensor in a safetensors file.

    Raises:
        InputError: from `embed`, a missing or malformed file, or see `ItemEmbeddings`.
    """

    path: str
    keys: str | None = None
    tensor: str = _TENSOR

    def embed(self) -> ItemEmbeddings:
        """See `EmbeddingSource`."""
        path = Path(self.path)
        if not path.is_file():
            raise InputError(f"{path}: no such file, expected embeddings in .safetensors or .npy")
        if path.suffix not in (".safetensors", ".npy"):
            raise InputError(f"{path}: ends in {path.suffix!r}, expected .safetensors or .npy")
        vectors = _read_array(path) if path.suffix == ".npy" else _read_tensor(path, self.tensor)
        return ItemEmbeddings(_read_keys(Path(self.keys) if self.keys else _keys_file(path)), vectors, source=str(path))


def warn_about_zeros(vectors: Tensor, source: str) -> None:
    """Log the number of zero vectors, which unseen items get in embeddings learnt from training interactions."""
    n_zeros = int((vectors == 0).all(1).sum())
    if n_zeros > 0:
        _LOG.warning(
            "%s: %d of %d items get vectors of zeros: no training interactions to learn from",
            source, n_zeros, len(vectors),
        )  # fmt: skip


def _keys_file(path: Path) -> Path:
    return path.with_suffix(".keys.json")


def _read_array(path: Path) -> Tensor:
    try:
        # Copy on write: torch warns about read-only memory.
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
        raise InputError(f"{path}: invalid JSON ({error}), expected a list of item keys") from None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise InputError(f"{path}: expected a JSON list of item keys, all of them strings")
    return keys
