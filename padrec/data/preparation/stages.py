"""Stages of a long job that an interruption does not undo."""

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from padrec.catalog import InputError
from padrec.data.preparation.engine import Connection
from padrec.data.preparation.progress import Progress, say

_LOCK = "lock"
_SETTINGS = "settings.json"
_COUNTS = "counts.json"
PARTIAL = ".partial"  # ends the names of folders and files that are not whole
P = ParamSpec("P")


@dataclass(frozen=True)
class Stage:
    """What a stage works with.

    Attributes:
        folder: gets what the stage writes.
        connection: runs the queries.
        progress: is told the state, and in the end the result.
    """

    folder: Path
    connection: Connection
    progress: Progress


class StageFolder:
    """A folder with one folder for each finished stage.

    A stage is written below a temporary name and gets its own when it is complete, so whatever has its name is whole.

    Args:
        path: the folder; made if there is none.
        settings: what the stages depend on, as JSON values.

    Attributes:
        counts: those of the stages so far.
    """

    def __init__(self, path: Path, settings: Mapping[str, object]) -> None:
        self.path = path
        self.counts: dict[str, int] = {}
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
        ours = (_LOCK, f"{_SETTINGS}{PARTIAL}")
        return self.path.exists() and any(child.name not in ours for child in self.path.iterdir())

    def _check_settings(self) -> None:
        """Refuse finished stages of other settings; where none is finished, nothing is lost by starting anew."""
        finished = [child for child in self.path.iterdir() if child.is_dir() and child.suffix != PARTIAL]
        if finished and (difference := first_difference(read_json(self.path / _SETTINGS), self.settings)):
            raise InputError(
                f"{self.path}: an unfinished preparation with {difference}; go on with the old settings, name another "
                "output, or delete this folder"
            )
        write_json(self.path / _SETTINGS, self.settings)

    def stage(
        self,
        name: str,
        connection: Connection,
        write: Callable[Concatenate["Stage", P], Mapping[str, int]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Path:
        """The folder of a finished stage; writes it if it is not there yet.

        Args:
            name: name of the stage and its folder.
            connection: runs the queries.
            write: fills the stage's folder and returns counts.
            args: further arguments of `write`.
            kwargs: further arguments of `write`.
        """
        path = self.path / name
        if path.exists():
            say(name, "finished before")
        else:
            partial = path.with_name(f"{name}{PARTIAL}")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            with Progress(name, connection.percent) as progress:
                write_json(partial / _COUNTS, write(Stage(partial, connection, progress), *args, **kwargs))
            partial.rename(path)
        self.counts |= read_json(path / _COUNTS)
        return path


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write a JSON file that is never there in part."""
    partial = path.with_name(f"{path.name}{PARTIAL}")
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
