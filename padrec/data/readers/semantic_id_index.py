"""Index files, which map items to code strings, and the item files beside them, as LC-Rec and its relatives use."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_lowercase

import torch

from padrec.catalog import Catalog, InputError
from padrec.catalog.whole_output import check_digests, written_whole
from padrec.data.json_file import read_json_object

# Nine digits hold every code that fits into 32 bits.
_CODE = re.compile(r"<([a-z])_(\d{1,9})>")


def read_index(path: Path, titles: Mapping[str, str] | None = None) -> Catalog:
    """Read a catalog from `{"item": ["<a_183>", "<b_70>", …], …}`, where the letter names the slot.

    `titles` are by item key, if the format has them; other items get an empty text.

    Raises:
        InputError: the file is missing, damaged or malformed, an item has no ID, IDs differ in length, or a code string
            is wrong or in the wrong slot.
    """
    check_digests(path.parent)
    index = read_json_object(path, 'item -> code strings like "<a_183>"')
    codes = [_codes(path, item, value) for item, value in index.items()]
    first = next(iter(index))
    for item, row in zip(index, codes, strict=True):
        if len(row) != len(codes[0]):
            found = f"item {item!r} has {len(row)} codes, item {first!r} has {len(codes[0])}"
            raise InputError(f"{path}: {found}, expected the same number for all items")
    texts = None if titles is None else [titles.get(item, "") for item in index]
    return Catalog(torch.tensor(codes, dtype=torch.int32), tuple(index), texts, source=str(path))


def read_index_and_titles(folder: Path, name: str | None = None) -> tuple[str, Catalog]:
    """Read `<name>.index.json` and, if it exists, `<name>.item.json`, a JSON object item -> object with a `title`.

    Returns name and catalog; without a name, those of the only `*.index.json`.
    """
    if name is None:
        name = only_file(folder, "*.index.json").name.removesuffix(".index.json")
    items, titles = folder / f"{name}.item.json", None
    if items.exists():
        titles = {}
        for item, value in read_json_object(items, "item -> properties with a title").items():
            title = value.get("title") if isinstance(value, dict) else value
            if not isinstance(title, str):
                raise InputError(f"{items}: item {item!r} has no title, expected an object with a title string")
            titles[item] = title
    return name, read_index(folder / f"{name}.index.json", titles)


def write_index(catalog: Catalog, path: Path) -> None:
    """Write a file that `read_index`, LC-Rec and other programs read."""
    if catalog.n_slots > len(ascii_lowercase):
        raise InputError(f"{path}: {catalog.n_slots} slots, expected at most {len(ascii_lowercase)}, a letter for each")
    index = {key: code_strings(codes) for key, codes in zip(catalog.keys, catalog.codes.tolist(), strict=True)}
    with written_whole(path) as part:
        part.write_text(json.dumps(index) + "\n", encoding="ascii")


def code_strings(codes: Sequence[int]) -> list[str]:
    """A semantic ID as index files have it: `<a_183>`, `<b_70>`, …, a letter for each slot."""
    return [f"<{letter}_{code}>" for letter, code in zip(ascii_lowercase, codes, strict=False)]


def only_file(folder: Path, pattern: str) -> Path:
    """Return the one file in a folder that matches a pattern; none or several are an error."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InputError(f"{folder}: expected one file {pattern}, found {names}")
    return found[0]


def _codes(path: Path, item: str, value: object) -> list[int]:
    if not isinstance(value, list) or not value:
        found = "no semantic ID" if value == [] else repr(value)
        raise InputError(f"{path}: item {item!r} has {found}, expected a list of code strings")
    codes = []
    for slot, text in enumerate(value):
        match = _CODE.fullmatch(text) if isinstance(text, str) else None
        letter = chr(ord("a") + slot)
        if match is None or match[1] != letter:
            raise InputError(f'{path}: item {item!r} has {text!r} in slot {slot}, expected a code like "<{letter}_7>"')
        codes.append(int(match[2]))
    return codes
