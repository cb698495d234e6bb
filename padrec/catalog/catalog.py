"""The items that can be recommended and their semantic IDs."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from padrec.catalog.errors import InputError
from padrec.catalog.tensor_file import read_tensors, write_tensors
from padrec.catalog.whole_output import check_digests, written_whole

ITEMS_FILE = "items.json"
"""Keys and texts in a folder of `Catalog.save`; no other folder with semantic IDs has a file of this name."""

_CODES_FILE = "codes.safetensors"
_LARGEST_CODE = torch.iinfo(torch.int32).max
_LARGEST_NUMBER = torch.iinfo(torch.int64).max


class Catalog:
    """All items, each with its semantic ID and the user's own key.

    Items that share a semantic ID are kept: together they are one *leaf*. Leaves are numbered in the lexicographic
    order of their codes, so that every prefix of codes owns one contiguous range of leaves.

    Args:
        codes: semantic IDs, integer `[n_items, L]`, each code at least 0 and less than 2³¹.
        keys: the users' own item keys, `[n_items]`, all different.
        texts: titles or descriptions, `[n_items]`, or None.
        source: where the catalog was read from, named in errors.

    Raises:
        InputError: an empty catalog, lengths that differ, a code out of range or a duplicate key.
    """

    def __init__(
        self, codes: Tensor, keys: Sequence[str], texts: Sequence[str] | None = None, source: str = "catalog"
    ) -> None:
        if codes.ndim != 2 or 0 in codes.shape:
            raise InputError(f"{source}: codes of shape {list(codes.shape)}, expected [items, slots], neither 0")
        for name, values in (("keys", keys), ("texts", texts)):
            if values is not None and len(values) != len(codes):
                raise InputError(f"{source}: {len(values)} {name} for {len(codes)} items, expected one for each")
        self.source = source
        self.codes = codes.to(torch.int32)
        self.keys = tuple(keys)
        self.texts = None if texts is None else tuple(texts)
        self._index = {key: index for index, key in enumerate(self.keys)}
        self._check(codes)
        leaf_codes, leaf_of_item, leaf_sizes = torch.unique(
            self.codes.long(), dim=0, sorted=True, return_inverse=True, return_counts=True
        )
        self.leaf_codes: Tensor = leaf_codes  # [n_leaves, L]
        self.leaf_of_item: Tensor = leaf_of_item  # [n_items]
        self.leaf_sizes: Tensor = leaf_sizes  # [n_leaves]
        # Arrays, of which single numbers are read in a tenth of a tensor's time.
        self._items_by_leaf = leaf_of_item.argsort(stable=True).numpy(force=True)
        self._leaf_starts = torch.cat([leaf_sizes.new_zeros(1), leaf_sizes.cumsum(0)]).numpy(force=True)

    def _check(self, codes: Tensor) -> None:
        if len(self._index) != len(self.keys):
            seen: set[str] = set()
            twice = next(key for key in self.keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            raise InputError(f"{self.source}: item key {twice!r} occurs twice, expected every key once")
        # The codes as they came: int32 would wrap larger ones around.
        outside = ((codes < 0) | (codes > _LARGEST_CODE)).any(1)
        if bool(outside.any()):
            item = int(outside.nonzero()[0])
            found = f"item {self.keys[item]!r} has the codes {codes[item].tolist()}"
            raise InputError(f"{self.source}: {found}, expected codes from 0 to {_LARGEST_CODE}")

    @classmethod
    def load(cls, folder: str | Path) -> "Catalog":
        """Read a folder that `save` wrote; a file that is missing, damaged or malformed is an InputError."""
        codes_file, items_file = Path(folder, _CODES_FILE), Path(folder, ITEMS_FILE)
        for file in (codes_file, items_file):
            if not file.is_file():
                raise InputError(f"{file.parent}: no {file.name}, expected a folder written by Catalog.save")
        check_digests(Path(folder))
        codes = read_tensors(codes_file, "codes").tensors["codes"]
        try:
            items = json.loads(items_file.read_text(encoding="utf-8"))
            keys, texts = items["keys"], items["texts"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{items_file}: expected a JSON object with keys and texts ({error})") from None
        if not _are_strings(keys) or not (texts is None or _are_strings(texts)):
            raise InputError(f"{items_file}: expected keys and texts to be lists of strings, or texts null")
        return cls(codes, keys, texts, source=str(folder))

    def save(self, folder: str | Path) -> None:
        """Write `codes.safetensors` (`codes`, int32 `[n_items, L]`) and `items.json` (`{"keys": […], "texts": …}`)."""
        with written_whole(Path(folder)) as part:
            part.mkdir()
            write_tensors(part / _CODES_FILE, {"codes": self.codes})
            (part / ITEMS_FILE).write_text(self._items_json() + "\n", encoding="ascii")

    def _items_json(self) -> str:
        return json.dumps({"keys": self.keys, "texts": self.texts})

    def to_state(self) -> dict[str, Any]:
        """The catalog as checkpoints hold it: tensors and strings."""
        return {"codes": self.codes, "items": self._items_json(), "source": self.source}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Catalog":
        """The catalog of `to_state`."""
        items = json.loads(state["items"])
        return cls(state["codes"], items["keys"], items["texts"], state["source"])

    def followed_by(self, other: "Catalog") -> "Catalog":
        """The items of both, these first; an item without a text gets an empty one where another has one.

        Another number of slots, and an item in both, are an InputError.
        """
        source = f"{self.source} + {other.source}"
        if self.n_slots != other.n_slots:
            raise InputError(f"{source}: {self.n_slots} and {other.n_slots} slots, expected as many in both")
        texts = None
        if self.texts is not None or other.texts is not None:
            texts = [text for one in (self, other) for text in one.texts or [""] * one.n_items]
        return Catalog(torch.cat([self.codes, other.codes]), self.keys + other.keys, texts, source)

    def check_ids(self, known: "Catalog", owner: str) -> None:
        """Refuse an owner that was trained with other semantic IDs of these items; some may have been added or removed.

        `known` is the catalog that it was trained with, of the same number of slots.
        """
        if self.keys == known.keys and torch.equal(self.codes, known.codes):
            return
        pairs = [(self._index[key], row) for row, key in enumerate(known.keys) if key in self._index]
        if not pairs:
            raise InputError(
                f"{owner}: none of its {known.n_items} items, such as {known.keys[0]!r}, is in {self.source}: expected "
                "the catalog that it was trained with, or one that adds items"
            )
        here, there = torch.tensor(pairs).unbind(1)
        changed = (self.codes[here] != known.codes[there]).any(1).nonzero().flatten()
        if len(changed) > 0:
            item, its = int(here[changed[0]]), int(there[changed[0]])
            raise InputError(
                f"{owner}: {len(changed)} of {len(pairs)} items have other semantic IDs in {self.source} than it was "
                f"trained with, such as {self.keys[item]!r}, {self.codes[item].tolist()} and not "
                f"{known.codes[its].tolist()}: expected that catalog, or one that adds items"
            )

    @property
    def n_items(self) -> int:
        """Number of items."""
        return self.codes.shape[0]

    @property
    def n_slots(self) -> int:
        """Codes in a semantic ID, L."""
        return self.codes.shape[1]

    @property
    def n_leaves(self) -> int:
        """Number of distinct semantic IDs."""
        return self.leaf_codes.shape[0]

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Largest code plus one, for each slot."""
        return tuple((self.codes.amax(0) + 1).tolist())

    def __contains__(self, key: str) -> bool:
        return key in self._index

    def index(self, key: str) -> int:
        """The row of the item with this key; none is an InputError."""
        try:
            return self._index[key]
        except KeyError:
            raise InputError(f"item {key!r} is not among the {self.n_items} items of {self.source}") from None

    def leaf_items(self, leaf: int) -> list[int]:
        """The items that share this leaf's semantic ID, in catalog order."""
        items: list[int] = self._items_by_leaf[self._leaf_starts[leaf] : self._leaf_starts[leaf + 1]].tolist()
        return items

    def leaf_of_codes(self, codes: Tensor) -> Tensor:
        """The leaf of each semantic ID, integer `[*, L]` of any value: int64 `[*]`, -1 where no item has it."""
        found = self._leaf_index.find(codes.numpy(force=True).reshape(-1, self.n_slots))
        return torch.from_numpy(found.reshape(codes.shape[:-1])).to(codes.device)

    @cached_property
    def _leaf_index(self) -> "LeafIndex":
        return LeafIndex(self.leaf_codes)


def _are_strings(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


class _Digits(NamedTuple):
    """Slots whose codes are the digits of one number, after the rank that the slots before them have led to."""

    slots: slice
    places: NDArray[np.int64]  # what each code counts, [slots]
    base: int  # what the rank counts
    numbers: NDArray[np.int64]  # those of all leaves, each once, sorted; its place among them is the next rank


class LeafIndex:
    """Finds leaves by their semantic IDs: one search in a sorted table, or a few where codes need more than 63 bits.

    `leaf_codes` are all semantic IDs in lexicographic order, int64 `[n_leaves, L]`, on the CPU.
    """

    def __init__(self, leaf_codes: Tensor) -> None:
        # Arrays, whose operations take a fifth of a tensor's time on lists as few as a service's.
        self._widths = (leaf_codes.amax(0) + 1).numpy()
        self._digits: list[_Digits] = []
        widths: list[int] = self._widths.tolist()
        rank, first = torch.zeros(len(leaf_codes), dtype=torch.long), 0
        while first < len(widths):
            last = first + 1
            while last < len(widths) and len(leaf_codes) * math.prod(widths[first : last + 1]) <= _LARGEST_NUMBER:
                last += 1
            places = torch.tensor([math.prod(widths[slot + 1 : last]) for slot in range(first, last)])
            slots, base = slice(first, last), math.prod(widths[first:last])
            # In the order of the leaves they are sorted.
            numbers, rank = torch.unique_consecutive(
                rank * base + (leaf_codes[:, slots] * places).sum(1), return_inverse=True
            )
            self._digits.append(_Digits(slots, places.numpy(), base, numbers.numpy()))
            first = last

    def find(self, codes: NDArray[np.integer]) -> NDArray[np.int64]:
        """The leaf of each semantic ID, int64 `[M]`, -1 where there is none; `codes` are integers `[M, L]`, any."""
        known = ((codes >= 0) & (codes < self._widths)).all(1)
        leaf = np.zeros((), dtype=np.int64)
        for digits in self._digits:
            number = leaf * digits.base + codes[:, digits.slots] @ digits.places  # may overflow where not `known`
            leaf = digits.numbers.searchsorted(number)
            known &= digits.numbers.take(leaf, mode="clip") == number
        return np.where(known, leaf, -1)
