"""Stages of a long job that an interruption does not undo."""

import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec

from padrec.catalog import InputError
from padrec.catalog.whole_output import PARTIAL, locked, writing, written_whole
from padrec.data.preparation.engine import Connection

_SETTINGS = "settings.json"
_COUNTS = "counts.json"
_SECONDS_BETWEEN_LINES = 5.0
P = ParamSpec("P")


class Progress:
    """Writes lines to stderr: when a stage starts, every few seconds until it ends, and when it ends.

    `percent` tells how far the running query is, 0 to 100; None where that is unknown.
    """

    def __init__(self, stage: str, percent: Callable[[], float | None] = lambda: None) -> None:
        self.stage = stage
        self.state = "at work"
        self._percent = percent
        self._start = time.monotonic()
        self._ended = threading.Event()
        self._reporter = threading.Thread(target=self._report, daemon=True)

    def __enter__(self) -> "Progress":
        say(self.stage, "started")
        self._reporter.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._ended.set()
        self._reporter.join()
        if error is None:
            say(self.stage, f"{self.state} ({time.monotonic() - self._start:.1f} s)")

    def _report(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_LINES):
            percent = self._percent()
            share = "" if percent is None else f", {percent:.0f} % of this query"
            say(self.stage, f"{self.state}{share} ({time.monotonic() - self._start:.0f} s)")


def say(stage: str, text: str) -> None:
    """Write one line to stderr."""
    print(f"padrec prepare: {stage}: {text}", file=sys.stderr, flush=True)


class Stage(NamedTuple):
    """What a stage works with."""

    folder: Path  # gets what the stage writes
    connection: Connection  # runs the queries
    progress: Progress  # is told the state, and in the end the result


class StageFolder:
    """A folder, made if there is none, with one folder for each finished stage.

    A stage is written below a temporary name and gets its own when it is complete, so whatever has its name is whole.
    """

    def __init__(self, path: Path, settings: Mapping[str, object]) -> None:
        self.path = path
        self.counts: dict[str, int] = {}  # of the stages so far
        self.settings = settings  # what the stages depend on, as JSON values

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out while stages are written.

        A folder of something else, and finished stages with other settings, are an error too.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path):
            self._check_settings()
            yield

    def _check_settings(self) -> None:
        """Refuse finished stages of other settings; where none is finished, nothing is lost by starting anew."""
        found = [child for child in self.path.iterdir() if child.suffix != PARTIAL]
        if found and not (self.path / _SETTINGS).exists():
            raise InputError(f"{self.path}: holds other files, expected an unfinished preparation or nothing")
        finished = any(child.is_dir() for child in found)
        if finished and (difference := first_difference(read_json(self.path / _SETTINGS), self.settings)):
            advice = "go on with the old settings, name another output, or delete this folder"
            raise InputError(f"{self.path}: an unfinished preparation with {difference}; {advice}")
        write_json(self.path / _SETTINGS, self.settings)

    def stage(
        self,
        name: str,
        connection: Connection,
        write: Callable[Concatenate[Stage, P], Mapping[str, int]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Path:
        """The folder of a finished stage; if it is not there yet, `write` fills it and returns counts."""
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
    """Write a JSON file as a whole, in place of an earlier one."""
    with written_whole(path, overwrite=True) as part:
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that `write_json` has written."""
    return dict(json.loads(path.read_text(encoding="utf-8")))


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
