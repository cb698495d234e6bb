"""A catalog on disk: the folder that `Catalog.save` writes."""

import json
import os
import tempfile
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from padrec.catalog.errors import InputError

_CODES_FILE = "codes.safetensors"
ITEMS_FILE = "items.json"
"""Keys and texts; no other folder with semantic IDs has a file of this name."""


def write_catalog_folder(folder: Path, codes: Tensor, keys: tuple[str, ...], texts: tuple[str, ...] | None) -> None:
    """Write `codes.safetensors` (tensor `codes`, int32 `[n_items, L]`) and `items.json` (`{"keys": […], "texts": …}`).

    The folder appears whole or not at all.

    Raises:
        InputError: the folder is there already, or cannot be written.
    """
    if folder.exists():
        raise InputError(f"{folder}: there already, expected no such folder: move it away or choose another one")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            part = Path(temporary) / "catalog"
            part.mkdir()
            save_file({"codes": codes.contiguous()}, part / _CODES_FILE)
            (part / ITEMS_FILE).write_text(items_json(keys, texts) + "\n", encoding="ascii")
            os.rename(part, folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None


def items_json(keys: tuple[str, ...], texts: tuple[str, ...] | None) -> str:
    """Keys and texts as `items.json` holds them, in ASCII."""
    return json.dumps({"keys": keys, "texts": texts})


def read_catalog_folder(folder: Path) -> tuple[Tensor, list[str], list[str] | None]:
    """Read what `write_catalog_folder` wrote.

    Returns:
        Codes int32 `[n_items, L]`, keys, texts.

    Raises:
        InputError: a file is missing or malformed.
    """
    for name in (_CODES_FILE, ITEMS_FILE):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: no {name}, expected a folder written by Catalog.save")
    try:
        codes = load_file(folder / _CODES_FILE)["codes"]
    except (SafetensorError, KeyError) as error:
        raise InputError(f"{folder / _CODES_FILE}: expected safetensors with a tensor `codes` ({error})") from None
    try:
        items = json.loads((folder / ITEMS_FILE).read_text(encoding="utf-8"))
        keys, texts = items["keys"], items["texts"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / ITEMS_FILE}: expected a JSON object with keys and texts ({error})") from None
    if not _are_strings(keys) or not (texts is None or _are_strings(texts)):
        raise InputError(f"{folder / ITEMS_FILE}: expected keys and texts to be lists of strings, or texts null")
    return codes, keys, texts


def _are_strings(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)
