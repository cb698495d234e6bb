"""Finding a file whose name a format leaves open."""

from pathlib import Path

from padrec.catalog import InputError


def only_file(folder: Path, pattern: str) -> Path:
    """The one file in a folder that matches a pattern.

    Raises:
        InputError: the folder is missing, or none or several files match.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InputError(f"{folder}: expected one file {pattern}, found {names}")
    return found[0]
