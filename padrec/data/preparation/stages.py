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
_PARTIAL = ".partial"


class StageFolder:
    """A folder with one folder for each finished stage.

    A stage is written below a temporary name and gets its own when it is complete, so whatever has its name is whole.

    Args:
        path: the folder; made if there is none.
        settings: what the stages depend on, as JSON values.
    """

    def __init__(self, path: Path, settings: Mapping[str, object]) -> None:
        self.path = path
        self.settings = settings

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out while stages are written.

        Raises:
            InputError: the folder holds something else, or finished stages with other settings, or another process is
                at work here.
        """
        if not (self.path / _SETTINGS).exists() and self._holds_other_files():
            raise InputError(f"{self.path}: holds other files, expected an unfinished preparation or nothing")
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / _LOCK).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{self.path}: another process is preparing it, expected one at a time") from None
            self._check_settings()
            yield

    def _holds_other_files(self) -> bool:
        ours = (_LOCK, f"{_SETTINGS}{_PARTIAL}")
        return self.path.exists() and any(child.name not in ours for child in self.path.iterdir())

    def _check_settings(self) -> None:
        """Refuse finished stages of other settings; where none is finished, nothing is lost by starting anew."""
        finished = [child for child in self.path.iterdir() if child.is_dir() and child.suffix != _PARTIAL]
        if finished and (difference := first_difference(read_json(self.path / _SETTINGS), self.settings)):
            raise InputError(
                f"{self.path}: an unfinished preparation with {difference}; go on with the old settings, name another "
                "output, or delete this folder"
            )
        write_json(self.path / _SETTINGS, self.settings)

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
            partial = path.with_name(f"{name}{_PARTIAL}")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            write(partial)
            partial.rename(path)
        return path


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON file that is never there in part."""
    partial = path.with_name(f"{path.name}{_PARTIAL}")
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
