"""The report of a comparison: `report.json` for programs, `report.md` for people."""

import json
import math
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from padrec.catalog.whole_output import check_place, written_whole
from padrec.evaluation.arm_metrics import SPEEDUP_OVER, quality_metric

_JSON, _MARKDOWN = "report.json", "report.md"
_MISSING = "–"
_MARKDOWN_SIGNS = str.maketrans({sign: f"\\{sign}" for sign in "\\`*[]|"} | {"<": "&lt;", "&": "&amp;"})
_HOW_TO_READ = (
    "Speedup: total seconds of the reference arm ÷ total seconds of the arm over the same users; median: that of the "
    "same ratio in each batch. τ: tokens per target pass, including the target's own token; accepted per pass leaves "
    "it out. Identical: share of lists equal to the reference arm's. "
    "Recording: seconds spent once on compiling and capturing for new shapes; part of no other number."
)
# How far ratio and median of a speedup may lie apart without a word.
_PARTED = 0.1

# A column's name, and how an arm's metrics fill it.
_Column = tuple[str, Callable[[Mapping[str, Any]], str]]


@dataclass(frozen=True)
class Report:
    """Arms side by side on the same users.

    Attributes:
        dataset: name of the data.
        users: number of users.
        list_length: K, items in a list.
        batch_size: users decoded together.
        temperature: 0 for greedy decoding.
        constraint: `catalog` for lists of distinct, existing items, None for free decoding.
        precision: precision of the target's weights.
        device: name of the device, see `device_name`.
        versions: software versions by name, see `software_versions`.
        seed: seed of sampled lists.
        command: the command line.
        reference: name of the reference arm.
        arms: each arm's metrics, in the order of the report.
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
        """Return the report for JSON, with None for numbers that are not finite."""
        return {name: _without_nan(value) for name, value in asdict(self).items()}

    def scalars(self) -> dict[str, float]:
        """Return every finite number as `test/<arm>/<metric>`, nested ones as `…/latency_ms/p50`."""
        return _numbers("test", self.arms)

    def markdown(self) -> str:
        """Return the report as Markdown: the main numbers of each arm, further ones, and the settings."""
        parts = [
            f"# Evaluation on {escape_markdown(self.dataset)}",
            markdown_table(*self._table(self._main_columns())),
            *self._remarks(),
            _HOW_TO_READ,
            "## Further numbers",
            markdown_table(*self._table([*self._further_speedups(), *_FURTHER_COLUMNS])),
            markdown_table(*self._table([*_PASS_COLUMNS, *map(_ranking, self._rankings())])),
            "## Settings",
            "\n".join(f"- {name}: {escape_markdown(value)}" for name, value in self._settings().items()),
            f"```\n{self.command}\n```",
        ]
        return "\n\n".join(parts) + "\n"

    def summary(self) -> str:
        """Return the main numbers as a table for a terminal of 80 columns."""
        header, rows = self._table(self._main_columns())
        cells = [header, *([arm, *row[1:]] for arm, row in zip(self.arms, rows, strict=True))]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ("  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]) for first, *others in cells)
        return "\n".join([*lines, *self._remarks()])

    def _table(self, columns: Sequence[_Column]) -> tuple[list[str], list[list[str]]]:
        """The header and one row per arm."""
        rows = [[escape_markdown(arm), *(cell(metrics) for _, cell in columns)] for arm, metrics in self.arms.items()]
        return ["arm", *(name for name, _ in columns)], rows

    def _main_columns(self) -> list[_Column]:
        return [*_SPEED_COLUMNS, _ranking(quality_metric(self._rankings())), *_COMPARISON_COLUMNS]

    def _rankings(self) -> list[str]:
        """Names of the ranking metrics by leaf."""
        return [name for name in next(iter(self.arms.values())) if name.startswith(("ndcg@", "recall@"))]

    def _further_speedups(self) -> list[_Column]:
        """A column for each further reference."""
        keys = dict.fromkeys(key for metrics in self.arms.values() for key in metrics if f"{key}_ci95" in metrics)
        return [
            (f"over {escape_markdown(key.removeprefix(SPEEDUP_OVER))}", _speedup(key))
            for key in keys
            if key.startswith(SPEEDUP_OVER)
        ]

    def _remarks(self) -> list[str]:
        """Sentences on arms whose speedup is doubtful, and on arms that choose among decoders."""
        parted = [
            f"{escape_markdown(arm)}: the ratio of totals, {metrics['speedup']:.2f}, is far from the median, "
            f"{metrics['speedup_median']:.2f}: a few slow batches decide it. Evaluate again, without other load."
            for arm, metrics in self.arms.items()
            if abs(metrics["speedup"] / metrics["speedup_median"] - 1) > _PARTED
        ]
        chosen = [
            f"{escape_markdown(arm)} wrote "
            + ", ".join(f"{count:,} lists by {escape_markdown(name)}" for name, count in metrics["lists_by"].items())
            + "."
            for arm, metrics in self.arms.items()
            if "lists_by" in metrics
        ]
        return parted + chosen

    def _settings(self) -> dict[str, str]:
        return {
            "users": f"{self.users:,}",
            "list length": str(self.list_length),
            "batch size": str(self.batch_size),
            "temperature": f"{self.temperature:g}",
            "reference arm": self.reference,
            "constraint": self.constraint or "none",
            "precision": self.precision,
            "device": self.device,
            "seed": str(self.seed),
            "versions": ", ".join(f"{name} {number}" for name, number in self.versions.items()),
        }

    def write(self, folder: Path) -> None:
        """Write `report.json` and `report.md`, see `write_report`."""
        write_report(folder, self.to_dict(), self.markdown())


def main_metrics(metrics: Iterable[str]) -> tuple[str, ...]:
    """Which of an arm's metrics `trainer.test` returns and TensorBoard's HParams tab shows.

    Five: the tab has no more columns unless told otherwise.
    """
    return ("speedup", "tokens_per_second", "acceptance_length", quality_metric(metrics), "identical_lists")


def write_report(folder: Path, content: Mapping[str, Any], markdown: str) -> None:
    """Write `report.json` and `report.md`, each as a whole or not at all.

    Args:
        folder: created if missing.
        content: content of the JSON file; numbers that are not finite become null.
        markdown: content of the other file.

    Raises:
        InputError: a report is there already, or cannot be written.
    """
    rendered = json.dumps(_without_nan(content), indent=2, ensure_ascii=False, allow_nan=False)
    with written_whole(folder / _MARKDOWN) as readable, written_whole(folder / _JSON) as whole:
        readable.write_text(markdown, encoding="utf-8")
        whole.write_text(rendered + "\n", encoding="utf-8")


def check_writable(folder: Path) -> None:
    """Check that a report can be written, before any long work starts.

    Raises:
        InputError: one is there already, or cannot be written.
    """
    for name in (_JSON, _MARKDOWN):
        check_place(folder / name)


def software_versions() -> dict[str, str]:
    """Return the versions of what affects results and speed, by name; `cuda` only if torch was built with it."""
    found = {}
    for package in ("padrec", "torch", "lightning", "transformers", "torchmetrics"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a checkout that was never installed
            found[package] = "not installed"
    found["python"] = platform.python_version()
    return found if torch.version.cuda is None else found | {"cuda": torch.version.cuda}


def escape_markdown(text: str) -> str:
    """Escape text so that Markdown shows it literally, on one line, also inside a table."""
    return " ".join(text.split()).translate(_MARKDOWN_SIGNS)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], right_aligned: bool = True) -> str:
    """Return a Markdown table of escaped cells; `right_aligned` aligns all columns but the first to the right."""
    rule = ["---", *["---:" if right_aligned else "---"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def _number(key: str, form: str) -> Callable[[Mapping[str, Any]], str]:
    """Format the metric of that name."""
    return lambda metrics: _format(metrics[key], form)


def _format(value: float | None, form: str) -> str:
    return format(value, form) if value is not None and math.isfinite(value) else _MISSING


def _speedup(key: str) -> Callable[[Mapping[str, Any]], str]:
    """Format the speedup of that name with its interval, if the arm has it."""

    def cell(metrics: Mapping[str, Any]) -> str:
        if key not in metrics:
            return _MISSING
        low, high = (_format(value, ".2f") for value in metrics[f"{key}_ci95"])
        return f"{_format(metrics[key], '.2f')} ({low} – {high})"

    return cell


def _identical(metrics: Mapping[str, Any]) -> str:
    share = metrics["identical_lists"]
    # A single list in 100,000 that differs must not be rounded away.
    return _format(share if share == 1 else min(share, 0.9999), ".0%" if share == 1 else ".2%")


def _latency(percentile: str) -> Callable[[Mapping[str, Any]], str]:
    """Format a percentile of the users' waiting times."""
    return lambda metrics: _format(metrics["latency_ms"][percentile], ",.1f")


def _ranking(name: str) -> _Column:
    """The column of a ranking metric."""
    return name.replace("ndcg", "NDCG"), _number(name, ".4f")


_SPEED_COLUMNS: tuple[_Column, ...] = (
    ("speedup (95 %)", _speedup("speedup")),
    ("median", _number("speedup_median", ".2f")),
    ("τ", _number("acceptance_length", ".2f")),
)
_COMPARISON_COLUMNS: tuple[_Column, ...] = (
    ("identical", _identical),
    ("p50 ms", _latency("p50")),
)
_FURTHER_COLUMNS: tuple[_Column, ...] = (
    ("tokens/s", _number("tokens_per_second", ",.0f")),
    ("lists/s", _number("lists_per_second", ",.2f")),
    ("p95 ms", _latency("p95")),
    ("recording (s)", _number("recording_seconds", ",.1f")),
)
_PASS_COLUMNS: tuple[_Column, ...] = (
    ("target passes", _number("target_passes", ",.0f")),
    ("one pass", _number("one_pass_users", ".1%")),
    ("accepted per pass", _number("accepted_per_pass", ".2f")),
    ("accepted steps", _number("accepted_steps", ".2f")),
    ("accepted share", _number("accepted_share", ".1%")),
)


def _without_nan(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(tag: str, value: object) -> dict[str, float]:
    """Finite numbers in nested mappings, by their path."""
    if isinstance(value, Mapping):
        parts = (_numbers(f"{tag}/{name}", entry) for name, entry in value.items())
        return {name: number for part in parts for name, number in part.items()}
    return {tag: float(value)} if isinstance(value, int | float) and math.isfinite(value) else {}
