"""Index files: a JSON object item -> code strings, as the LC-Rec and AtSpeed repositories write them."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from string import ascii_lowercase

import torch

from padrec.catalog import Catalog, InputError
from padrec.data.json_file import read_json_object

# Nine digits hold every code that fits in 32 bits and is no typing error.
_CODE = re.compile(r"<([a-z])_(\d{1,9})>")


def read_index(path: Path, titles: Mapping[str, str] | None = None) -> Catalog:
    """Read the catalog: `{"item": ["<a_183>", "<b_70>", …], …}`, the letter naming the slot.

    Args:
        path: the index file.
        titles: item key to title, where the format has them; an item without one gets an empty text.

    Raises:
        InputError: the file is missing or malformed, an item has no ID, IDs differ in length, or a code string is
            wrong or stands in the wrong slot.
    """
    index = read_json_object(path, 'item -> code strings like "<a_183>"')
    codes = [_codes(path, item, value) for item, value in index.items()]
    first = next(iter(index))
    for item, row in zip(index, codes, strict=True):
        if len(row) != len(codes[0]):
            raise InputError(
                f"{path}: item {item!r} has {len(row)} codes, item {first!r} has {len(codes[0])}, "
                "expected the same number for all items"
            )
    texts = None if titles is None else [titles.get(item, "") for item in index]
    return Catalog(torch.tensor(codes, dtype=torch.int32), tuple(index), texts, source=str(path))


def write_index(catalog: Catalog, path: Path) -> None:
    """Write what `read_index` reads, for LC-Rec and other programs.

    Raises:
        InputError: the file is there already, or the catalog has more slots than there are letters.
    """
    if path.exists():
        raise InputError(f"{path}: there already, expected no such file")
    if catalog.n_slots > len(ascii_lowercase):
        raise InputError(f"{path}: {catalog.n_slots} slots, expected at most {len(ascii_lowercase)}, a letter for each")
    rows = zip(catalog.keys, catalog.codes.tolist(), strict=True)
    index = {
        key: [f"<{letter}_{code}>" for letter, code in zip(ascii_lowercase, row, strict=False)] for key, row in rows
    }
    path.write_text(json.dumps(index) + "\n", encoding="ascii")


def _codes(path: Path, item: str, value: object) -> list[int]:
    if not isinstance(value, list):
        raise InputError(f"{path}: item {item!r} has {value!r}, expected a list of code strings")
    if not value:
        raise InputError(f"{path}: item {item!r} has no semantic ID, expected a list of code strings")
    codes = []
    for slot, text in enumerate(value):
        match = _CODE.fullmatch(text) if isinstance(text, str) else None
        letter = chr(ord("a") + slot)
        if match is None or match[1] != letter:
            raise InputError(f'{path}: item {item!r} has {text!r} in slot {slot}, expected a code like "<{letter}_7>"')
        codes.append(int(match[2]))
    return codes
