"""Stages of a long job that an interruption does not undo."""

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from padrec.catalog import InputError
from padrec.data.preparation.progress import say

_LOCK = "lock"
_SETTINGS = "settings.json"


class StageFolder:
    """A folder with one folder for each finished stage.

    A stage is written below a temporary name and gets its own when it is complete, so whatever has its name is whole.

    Args:
        path: the folder; made if there is none.
        settings: what the stages depend on, as JSON values.

    Raises:
        InputError: the folder holds something else, or stages with other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, object]) -> None:
        self.path = path
        found = path / _SETTINGS
        if not found.exists():
            if path.exists() and any(child.name != _LOCK and child.suffix != ".partial" for child in path.iterdir()):
                raise InputError(f"{path}: holds other files, expected an unfinished preparation or nothing")
            path.mkdir(parents=True, exist_ok=True)
            write_json(found, settings)
        elif difference := first_difference(read_json(found), settings):
            raise InputError(
                f"{path}: an unfinished preparation with {difference}; go on with the old settings, name another "
                "output, or delete this folder"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep a second process out.

        Raises:
            InputError: another process is at work here.
        """
        with (self.path / _LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{self.path}: another process is preparing it, expected one at a time") from None
            yield

    def stage(self, name: str, write: Callable[[Path], None]) -> Path:
        """The folder of a finished stage; writes it if it is not there yet.

        Args:
            name: of the stage and its folder.
            write: fills the folder that it is given.
        """
        path = self.path / name
        if path.exists():
            say(name, "finished before")
        else:
            partial = path.with_name(f"{name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            write(partial)
            partial.rename(path)
        return path


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON file that is never there in part."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.rename(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that `write_json` has written."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def first_difference(found: object, expected: object, name: str = "") -> str | None:
    """Where two JSON values differ first, for a message: `split.count 1, expected 2`; None where they are equal."""
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        found, expected = dict(enumerate(found)), dict(enumerate(expected))
    if isinstance(found, dict) and isinstance(expected, Mapping):
        for key in dict.fromkeys([*expected, *found]):
            place = f"{name}.{key}" if name else str(key)
            if difference := first_difference(found.get(key), expected.get(key), place):
                return difference
        return None
    return None if found == expected else f"{name} {found!r}, expected {expected!r}"
