"""A catalog on disk: the folder that `Catalog.save` writes."""

import json
from pathlib import Path

from torch import Tensor

from padrec.catalog.errors import InputError
from padrec.catalog.tensor_file import read_tensors, write_tensors
from padrec.catalog.whole_output import check_digests, written_whole

_CODES_FILE = "codes.safetensors"
ITEMS_FILE = "items.json"
"""Keys and texts; no other folder with semantic IDs has a file of this name."""


def write_catalog_folder(folder: Path, codes: Tensor, keys: tuple[str, ...], texts: tuple[str, ...] | None) -> None:
    """Write `codes.safetensors` (tensor `codes`, int32 `[n_items, L]`) and `items.json` (`{"keys": […], "texts": …}`).

    Raises:
        InputError: see `written_whole`.
    """
    with written_whole(folder) as part:
        part.mkdir()
        write_tensors(part / _CODES_FILE, {"codes": codes})
        (part / ITEMS_FILE).write_text(items_json(keys, texts) + "\n", encoding="ascii")


def items_json(keys: tuple[str, ...], texts: tuple[str, ...] | None) -> str:
    """Keys and texts as `items.json` holds them, in ASCII."""
    return json.dumps({"keys": keys, "texts": texts})


def read_catalog_folder(folder: Path) -> tuple[Tensor, list[str], list[str] | None]:
    """Read what `write_catalog_folder` wrote.

    Returns:
        Codes int32 `[n_items, L]`, keys, texts.

    Raises:
        InputError: a file is missing, damaged or malformed.
    """
    for name in (_CODES_FILE, ITEMS_FILE):
        if not (folder / name).is_file():
            raise InputError(f"{folder}: no {name}, expected a folder written by Catalog.save")
    check_digests(folder)
    codes = read_tensors(folder / _CODES_FILE, "codes").tensors["codes"]
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
