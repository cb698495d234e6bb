"""The report of a comparison: `report.json` for programs, `report.md` for people."""

import json
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from padrec.catalog import InputError
from padrec.evaluation.arm_result import SPEEDUP_OVER

_JSON, _MARKDOWN = "report.json", "report.md"
_MISSING = "–"
_MARKDOWN_SIGNS = str.maketrans({sign: f"\\{sign}" for sign in "\\`*[]|"} | {"<": "&lt;", "&": "&amp;"})
_HOW_TO_READ = (
    "Speedup: total seconds of the reference arm ÷ total seconds of the arm over the same users. "
    "Recording: seconds for compiling and recording what an arm met first; paid once, part of no other number. "
    "τ: tokens per target pass, the target's own token included; accepted per pass leaves that token out. "
    "Identical lists: share of lists equal to the reference arm's."
)


@dataclass(frozen=True)
class Report:
    """Arms side by side on the same users.

    Attributes:
        dataset: name of the data.
        users: number of users.
        list_length: K, items in a list.
        batch_size: users decoded together.
        temperature: 0 for greedy decoding.
        constraint: `catalog` for lists of distinct items that exist, None for free decoding.
        precision: of the target's weights.
        device: what decoded, see `device_name`.
        versions: versions of the software, by name, see `software_versions`.
        seed: of sampled lists.
        command: the command line.
        reference: name of the reference arm.
        arms: each arm's metrics; the first arm is named first everywhere.
    """

    dataset: str
    users: int
    list_length: int
    batch_size: int
    temperature: float
    constraint: str | None
    precision: str
    device: str
    versions: dict[str, str]
    seed: int
    command: str
    reference: str
    arms: dict[str, dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it; a number that is not finite is None."""
        return {name: _without_nan(value) for name, value in asdict(self).items()}

    def scalars(self) -> dict[str, float]:
        """Every finite number of every arm as `test/<arm>/<metric>`; of several levels as `…/latency_ms/p50`."""
        found: dict[str, float] = {}
        for arm, metrics in self.arms.items():
            _collect_numbers(f"test/{arm}", metrics, found)
        return found

    def markdown(self) -> str:
        """The report as Markdown: a table with one row per arm, then the settings."""
        title = f"# Evaluation on {escape_markdown(self.dataset)}"
        speedup, *others = _COLUMNS
        columns = [speedup, *self._further_speedups(), *others]
        header = ["arm", *(name for name, _ in columns)]
        rows = [[escape_markdown(arm), *(cell(metrics) for _, cell in columns)] for arm, metrics in self.arms.items()]
        settings = [f"- {name}: {value}" for name, value in self._settings().items()]
        command = f"```\n{self.command}\n```"
        table = markdown_table(header, rows)
        parts = [title, table, _HOW_TO_READ, *self._choices(), "## Settings", "\n".join(settings), command]
        return "\n\n".join(parts) + "\n"

    def _further_speedups(self) -> list[tuple[str, Callable[[Mapping[str, Any]], str]]]:
        """A column for each arm beside the reference over which there are speedups."""
        keys = dict.fromkeys(key for metrics in self.arms.values() for key in metrics if f"{key}_ci95" in metrics)
        return [
            (f"over {escape_markdown(key.removeprefix(SPEEDUP_OVER))}", _speedup(key))
            for key in keys
            if key.startswith(SPEEDUP_OVER)
        ]

    def _choices(self) -> list[str]:
        """A sentence for each arm that chooses among decoders."""
        return [
            f"{escape_markdown(arm)} wrote "
            + ", ".join(f"{count:,} lists by {escape_markdown(name)}" for name, count in metrics["lists_by"].items())
            + "."
            for arm, metrics in self.arms.items()
            if "lists_by" in metrics
        ]

    def _settings(self) -> dict[str, str]:
        return {
            "users": f"{self.users:,}",
            "list length": str(self.list_length),
            "batch size": str(self.batch_size),
            "temperature": f"{self.temperature:g}",
            "reference arm": escape_markdown(self.reference),
            "constraint": escape_markdown(self.constraint or "none"),
            "precision": escape_markdown(self.precision),
            "device": escape_markdown(self.device),
            "seed": str(self.seed),
            "versions": escape_markdown(", ".join(f"{name} {number}" for name, number in self.versions.items())),
        }

    def write(self, folder: Path) -> None:
        """Write `report.json` and `report.md`; neither is ever half-written.

        Args:
            folder: made if missing.

        Raises:
            InputError: a report is already there, or the folder cannot be written to.
        """
        write_report(folder, self.to_dict(), self.markdown())


def write_report(folder: Path, content: Mapping[str, Any], markdown: str) -> None:
    """Write `report.json` and `report.md`; neither is ever half-written.

    Args:
        folder: made if missing.
        content: of the JSON file; a number that is not finite becomes null.
        markdown: of the other file.

    Raises:
        InputError: a report is already there, or the folder cannot be written to.
    """
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rendered = json.dumps(_without_nan(content), indent=2, ensure_ascii=False, allow_nan=False)
    texts = {_MARKDOWN: markdown, _JSON: rendered + "\n"}
    for name, text in texts.items():
        _partial(folder / name).write_text(text, encoding="utf-8")
    for name in texts:
        os.replace(_partial(folder / name), folder / name)


def check_writable(folder: Path) -> None:
    """See to it that a report can be written, before the long work starts.

    Raises:
        InputError: a report is already there, or the folder cannot be made or written to.
    """
    for path in (folder / _JSON, folder / _MARKDOWN):
        if path.exists():
            raise InputError(f"{path}: there already, expected no report there: move it away or choose another folder")
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise InputError(f"{folder}: {nearest} is a file, expected a folder for the report")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: no permission to write in {nearest}, expected a folder for the report")


def software_versions() -> dict[str, str]:
    """Versions of what decides over results and speed, by name; `cuda` only where torch was built with it."""
    packages = ("padrec", "torch", "lightning", "transformers", "torchmetrics")
    found = {name: _version(name) for name in packages} | {"python": platform.python_version()}
    return found if torch.version.cuda is None else found | {"cuda": torch.version.cuda}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "not installed"


def device_name(device: torch.device) -> str:
    """What a device is called by its maker; for the CPU with the number of threads that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    threads = torch.get_num_threads()
    return f"{_processor()} ({threads} thread{'s' if threads > 1 else ''})"


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line, also inside a table."""
    return " ".join(text.split()).translate(_MARKDOWN_SIGNS)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], right_aligned: bool = True) -> str:
    """A Markdown table.

    Args:
        header: one name per column.
        rows: cells, escaped already.
        right_aligned: whether the columns behind the first are, as numbers should be.
    """
    rule = ["---", *["---:" if right_aligned else "---"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def _number(key: str, form: str) -> Callable[[Mapping[str, Any]], str]:
    """Writes the metric of that name."""
    return lambda metrics: _format(metrics[key], form)


def _format(value: float | None, form: str) -> str:
    return format(value, form) if value is not None and math.isfinite(value) else _MISSING


def _speedup(key: str) -> Callable[[Mapping[str, Any]], str]:
    """Writes the speedup of that name with its interval, where there is one."""

    def cell(metrics: Mapping[str, Any]) -> str:
        if key not in metrics:
            return _MISSING
        low, high = (_format(value, ".2f") for value in metrics[f"{key}_ci95"])
        return f"{_format(metrics[key], '.2f')} × ({low} – {high})"

    return cell


def _identical(metrics: Mapping[str, Any]) -> str:
    share = metrics["identical_lists"]
    # One list in 100,000 that differs must not be rounded away.
    return _format(share if share == 1 else min(share, 0.9999), ".2%")


def _latency(metrics: Mapping[str, Any]) -> str:
    return " / ".join(_format(metrics["latency_ms"][percentile], ",.1f") for percentile in ("p50", "p95"))


_COLUMNS: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("speedup (95 % interval)", _speedup("speedup")),
    ("tokens/s", _number("tokens_per_second", ",.0f")),
    ("lists/s", _number("lists_per_second", ",.2f")),
    ("τ", _number("acceptance_length", ".2f")),
    ("accepted per pass", _number("accepted_per_pass", ".2f")),
    ("target passes", _number("target_passes", ",.0f")),
    ("NDCG@10", _number("ndcg@10", ".4f")),
    ("recall@10", _number("recall@10", ".4f")),
    ("identical lists", _identical),
    ("latency p50 / p95 (ms)", _latency),
    ("recording (s)", _number("recording_seconds", ",.1f")),
)


def _without_nan(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _collect_numbers(tag: str, values: Mapping[str, Any], found: dict[str, float]) -> None:
    for name, value in values.items():
        if isinstance(value, Mapping):
            _collect_numbers(f"{tag}/{name}", value, found)
        elif isinstance(value, int | float) and math.isfinite(value):
            found[f"{tag}/{name}"] = float(value)


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _processor() -> str:
    """The processor's model name where Linux tells it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
