"""From a raw log to a prepared folder, in stages."""

import json
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa

from padrec.catalog import InputError
from padrec.data.logs import LogSource
from padrec.data.preparation.core_log import CoreLog, find_core
from padrec.data.preparation.fingerprint import fingerprint
from padrec.data.preparation.interaction_table import write_interactions
from padrec.data.preparation.item_table import write_items
from padrec.data.preparation.leave_last_out import LeaveLastOut
from padrec.data.preparation.log_partitions import partition_log, read_counts, read_items
from padrec.data.preparation.ordered_log import OrderedLog, order_log
from padrec.data.preparation.prepared_folder import FORMAT, PreparedFolder
from padrec.data.preparation.progress import Progress, say
from padrec.data.preparation.split_rule import SplitRule
from padrec.data.preparation.stages import StageFolder, first_difference, read_json, write_json

_COUNTS = "counts.json"


class Preparation:
    """Filters, orders and splits a raw log, and writes it as a prepared folder.

    In this order: interactions with a low rating are left out; of a user's interactions with the same item the first
    is kept; users and items with too few interactions are left out until none is left that has too few (k-core); the
    rest is split. Interactions at the same time stay in the order of the log.

    An interrupted preparation goes on behind its last finished stage. Its stages lie in `<output>.unfinished` until
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

    Raises:
        InputError: an argument is out of range, or the split needs more interactions of a user than `user_core` grants.
    """

    def __init__(
        self,
        source: LogSource,
        output: str,
        min_rating: float | None = None,
        deduplicate: bool = True,
        user_core: int = 5,
        item_core: int = 5,
        split: SplitRule | None = None,
    ) -> None:
        self.source = source
        self.output = PreparedFolder(Path(output))
        self.min_rating = min_rating
        self.deduplicate = deduplicate
        self.user_core = user_core
        self.item_core = item_core
        self.split = LeaveLastOut() if split is None else split
        for name in ("user_core", "item_core"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}, expected at least 1, which keeps all")
        if user_core < self.split.least_interactions:
            raise InputError(
                f"user_core is {user_core}, expected at least {self.split.least_interactions}: "
                f"{type(self.split).__name__} needs as many interactions of every user"
            )

    def run(self) -> None:
        """Prepare what is not prepared yet; says on stderr how far it is.

        Raises:
            InputError: the log is wrong or nothing is left of it, or the output or its unfinished stages were made
                with other settings or from other files.
        """
        settings = self._settings()
        if self.output.path.exists():
            self._check_finished(settings)
            return
        stages = StageFolder(self.output.path.with_name(f"{self.output.path.name}.unfinished"), settings)
        with stages.locked():
            self._run_stages(stages, settings)
            shutil.rmtree(stages.path)

    def _settings(self) -> dict[str, Any]:
        """Everything that the output depends on, as JSON values."""
        progress = Progress("fingerprint")
        sources = fingerprint(self.source.files())
        progress.end(f"{sum(file['bytes'] for file in sources):,} bytes in {len(sources)} files")
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
            raise InputError(
                f"{self.output.path}: prepared with {difference}; nothing is overwritten: name another output, or "
                "delete this folder"
            )
        say("done", f"{self.output.path} is prepared already")

    def _run_stages(self, stages: StageFolder, settings: Mapping[str, object]) -> None:
        read = stages.stage("read", lambda folder: partition_log(self.source, self.min_rating, folder))
        keys = read_items(read)
        log = OrderedLog(stages.stage("order", lambda folder: order_log(read, self.deduplicate, folder)))
        core = stages.stage("core", lambda folder: find_core(log, len(keys), self.user_core, self.item_core, folder))
        kept = CoreLog(log, core, self.user_core)
        split = stages.stage("split", lambda folder: self._write_split(kept, folder))
        kept_keys = keys.filter(pa.array(kept.items))
        items = stages.stage("items", lambda folder: self._write_items(kept_keys, folder))
        counts = {**read_counts(read), "distinct": log.distinct, **kept.counts, "items": len(kept_keys)}
        counts |= read_json(split / _COUNTS) | read_json(items / _COUNTS)
        self._finish(stages, [split, items], {**settings, "counts": counts, "versions": _versions()})

    def _write_split(self, log: CoreLog, folder: Path) -> None:
        files = PreparedFolder(folder)
        write_json(folder / _COUNTS, write_interactions(log, self.split, files.interactions, files.users))

    def _write_items(self, keys: pa.ChunkedArray, folder: Path) -> None:
        without = write_items(self.source, keys, PreparedFolder(folder).items)
        write_json(folder / _COUNTS, {"items_without_text": without})

    def _finish(self, stages: StageFolder, folders: list[Path], summary: Mapping[str, object]) -> None:
        whole = PreparedFolder(stages.path / "prepared")
        whole.path.mkdir(exist_ok=True)
        for path in [path for folder in folders for path in folder.glob("*.parquet")]:
            path.rename(whole.path / path.name)
        write_json(whole.summary, summary)
        self.output.path.parent.mkdir(parents=True, exist_ok=True)
        whole.path.rename(self.output.path)
        say("done", str(self.output.path))


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in ("padrec", "pyarrow", "numpy")}
