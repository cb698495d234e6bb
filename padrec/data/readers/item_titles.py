"""Item files of LC-Rec and its relatives: a JSON object item -> properties."""

from pathlib import Path

from padrec.catalog import InputError
from padrec.data.json_file import read_json_object


def read_titles(path: Path) -> dict[str, str]:
    """The title of every item in the file.

    Raises:
        InputError: the file is missing or malformed, or an item has no title.
    """
    titles = {}
    for item, value in read_json_object(path, "item -> properties with a title").items():
        title = value.get("title") if isinstance(value, dict) else value
        if not isinstance(title, str):
            raise InputError(f"{path}: item {item!r} has no title, expected an object with a title string")
        titles[item] = title
    return titles
