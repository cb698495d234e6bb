"""From a raw log to a prepared folder, in stages."""

import hashlib
import json
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

from padrec.catalog import InputError, PositiveInt, check_arguments
from padrec.catalog.whole_output import PARTIAL, check_place, write_digests
from padrec.data.logs.source import LogSource
from padrec.data.preparation.engine import DuckDBEngine, Engine, connected
from padrec.data.preparation.prepared_folder import FORMAT, PreparedFolder
from padrec.data.preparation.split_rule import LeaveLastOut, SplitRule
from padrec.data.preparation.stages import Progress, StageFolder, first_difference, say, write_json
from padrec.data.text_file import open_binary


class Preparation:
    """Filters, orders and splits a raw log, and writes it as a prepared folder.

    In this order: interactions with a low rating are left out; of a user's interactions with the same item the first
    is kept; users and items with too few interactions are left out until none is left that has too few (k-core); the
    rest is split. Interactions at the same time stay in the order of the log.

    An interrupted preparation resumes after its last finished stage. Its stages are kept in `<output>.unfinished` until
    the output is complete. An output is never overwritten.

    Args:
        source: the log; in a config a `class_path` with `init_args`.
        output: folder to write.
        min_rating: the lowest rating of an interaction that is kept; None keeps all.
        deduplicate: whether to keep a user's first interaction with an item only.
        user_core: interactions that every user must have, at least 1.
        item_core: interactions that every item must have, at least 1.
        split: deals the interactions out; None leaves each user's last one out for the test and the one before it for
            validation.
        engine: runs the queries; None takes DuckDB with its defaults. The rows do not depend on it.

    Raises:
        InputError: an argument is out of range, or the split needs more interactions of a user than `user_core` grants.
    """

    def __init__(
        self,
        source: LogSource,
        output: str,
        min_rating: float | None = None,
        deduplicate: bool = True,
        user_core: PositiveInt = 5,
        item_core: PositiveInt = 5,
        split: SplitRule | None = None,
        engine: Engine | None = None,
    ) -> None:
        check_arguments(Preparation, locals())
        self.source = source
        self.output = PreparedFolder(Path(output))
        self.min_rating = min_rating
        self.deduplicate = deduplicate
        self.user_core = user_core
        self.item_core = item_core
        self.split = LeaveLastOut() if split is None else split
        self.engine = DuckDBEngine() if engine is None else engine
        if user_core < self.split.least_interactions:
            reason = f"{type(self.split).__name__} needs as many interactions of every user"
            raise InputError(f"user_core is {user_core}, expected at least {self.split.least_interactions}: {reason}")

    def run(self) -> None:
        """Prepare what is not prepared yet; reports its progress on stderr.

        Raises:
            InputError: the log is wrong or nothing is left of it, or the output or its unfinished stages were made with
                other settings or from other files.
        """
        unfinished = self.output.path.with_name(f"{self.output.path.name}.unfinished")
        if not self.output.path.exists():
            check_place(self.output.path)
        settings = self._settings()
        if self.output.path.exists():
            self._check_finished(settings)
            shutil.rmtree(unfinished, ignore_errors=True)  # what a kill left after the last step
            return
        stages = StageFolder(unfinished, settings)
        with stages.locked():
            self._run_stages(stages, settings)
            shutil.rmtree(stages.path)

    def _settings(self) -> dict[str, Any]:
        with Progress("fingerprint") as progress:
            sources = list(_fingerprints(self.source.files()))
            progress.state = f"{sum(file['bytes'] for file in sources):,} bytes in {len(sources)} files"
        settings = {
            "format": FORMAT,
            "source": {"class": type(self.source).__name__, **self.source.settings()},
            "min_rating": self.min_rating,
            "deduplicate": self.deduplicate,
            "user_core": self.user_core,
            "item_core": self.item_core,
            "split": {"class": type(self.split).__name__, **self.split.settings()},
            "files": sources,
        }
        return dict(json.loads(json.dumps(settings)))

    def _check_finished(self, settings: Mapping[str, object]) -> None:
        summary = self.output.read_summary()
        found = {name: summary.get(name) for name in settings}
        if difference := first_difference(found, settings):
            advice = "nothing is overwritten: name another output, or delete this folder"
            raise InputError(f"{self.output.path}: prepared with {difference}; {advice}")
        say("done", f"{self.output.path} is prepared already")

    def _run_stages(self, stages: StageFolder, settings: Mapping[str, object]) -> None:
        # Ibis and DuckDB are loaded only here: importing them takes a second.
        from padrec.data.preparation.queries import find_core, order_log, read_log, write_interactions, write_items

        scratch = stages.path / f"scratch{PARTIAL}"
        with ExitStack() as stack:
            engine = stack.enter_context(connected(self.engine, scratch))
            reader = engine
            if not isinstance(self.engine, DuckDBEngine):
                reader = stack.enter_context(connected(DuckDBEngine(), stages.path / f"reader{PARTIAL}"))
            read = stages.stage("read", reader, read_log, self.source, self.min_rating)
            order = stages.stage("order", engine, order_log, read, self.min_rating, self.deduplicate)
            core = stages.stage("core", engine, find_core, order, self.user_core, self.item_core)
            split = stages.stage("split", engine, write_interactions, order, core, self.user_core, self.split)
            items = stages.stage("items", reader, write_items, split, self.source)
        self._finish(stages, [split, items], {**settings, "counts": stages.counts, "versions": _versions()})

    def _finish(self, stages: StageFolder, folders: list[Path], summary: Mapping[str, object]) -> None:
        whole = PreparedFolder(stages.path / "prepared")
        whole.path.mkdir(exist_ok=True)
        for name in (whole.interactions.name, whole.users.name, whole.items.name):
            for path in (folder / name for folder in folders if (folder / name).exists()):
                path.rename(whole.path / name)
        write_json(whole.summary, summary)
        write_digests(whole.path)
        whole.path.rename(self.output.path)
        say("done", str(self.output.path))


def _fingerprints(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Name, size in bytes and SHA-256 of each file; its folder does not matter."""
    for path in paths:
        with open_binary(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            yield {"name": path.name, "bytes": file.tell(), "sha256": digest}


def _versions() -> dict[str, str]:
    packages = ("padrec", "pyarrow", "ibis-framework", "duckdb")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}
