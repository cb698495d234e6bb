"""Vectors of items, and the files that hold them."""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from padrec.catalog import InputError
from padrec.catalog.tensor_file import read_tensors, write_tensors
from padrec.catalog.whole_output import check_absent, written_whole

_LOG = logging.getLogger(__name__)
_TENSOR = "embeddings"
_KEYS_DIGEST = "keys_sha256"


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
            found = f"{vectors.dtype} of shape {list(vectors.shape)}"
            raise InputError(f"{source}: {found}, expected floats [items, dimensions]")
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
            item = self.keys[int(wrong[0])]
            raise InputError(f"{source}: the vector of item {item!r} has a value that is not finite")

    def __len__(self) -> int:
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
        """Write a new file, whose name ends in `.safetensors`, and, beside it, the keys as `<name>.keys.json`."""
        path = Path(path)
        if path.suffix != ".safetensors":
            raise InputError(f"{path}: expected a name that ends in .safetensors")
        check_absent(path)
        keys = json.dumps(self.keys) + "\n"
        with written_whole(_keys_file(path), overwrite=True) as part:  # without its vectors, it is what a kill has left
            part.write_text(keys, encoding="ascii")
        write_tensors(path, {_TENSOR: self.vectors}, {_KEYS_DIGEST: hashlib.sha256(keys.encode()).hexdigest()})


class EmbeddingSource(Protocol):
    """A source of item embeddings: a file, texts, behaviour, a target, or several of these."""

    def embed(self) -> ItemEmbeddings:
        """Read or compute the embeddings; input that is missing or wrong is an InputError."""


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
        if path.suffix == ".npy":
            vectors, keys_digest = _read_array(path), None
        else:
            tensors, metadata = read_tensors(path, self.tensor)
            vectors, keys_digest = tensors[self.tensor], metadata.get(_KEYS_DIGEST)
        keys = _read_keys(Path(self.keys)) if self.keys else _read_keys(_keys_file(path), keys_digest)
        return ItemEmbeddings(keys, vectors, source=str(path))


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


def _read_keys(path: Path, digest: str | None = None) -> list[str]:
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a JSON list of item keys in the order of the vectors")
    if digest not in (None, hashlib.sha256(path.read_bytes()).hexdigest()):
        raise InputError(f"{path}: not the keys that were written with the vectors, expected SHA-256 {digest}")
    try:
        keys = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: invalid JSON ({error}), expected a list of item keys") from None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise InputError(f"{path}: expected a JSON list of item keys, all of them strings")
    return keys
