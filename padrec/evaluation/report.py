"""The report of a comparison: `report.json` for programs, `report.md` for people."""

import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from padrec.catalog.whole_output import check_place, written_whole
from padrec.evaluation.arm_metrics import SPEEDUP_OVER

MAIN_METRICS = ("speedup", "tokens_per_second", "acceptance_length", "ndcg@10", "identical_lists", "identical_texts")
"""What `trainer.test` returns and TensorBoard's HParams tab shows, as far as an arm has it."""
_JSON, _MARKDOWN = "report.json", "report.md"
_MISSING = "–"
_MARKDOWN_SIGNS = str.maketrans({sign: f"\\{sign}" for sign in "\\`*[]|"} | {"<": "&lt;", "&": "&amp;"})
_HOW_TO_READ = (
    "Speedup: total seconds of the reference arm ÷ total seconds of the arm over the same users; median: that of the "
    "same ratio in each batch. τ: tokens per target pass, including the target's own token; accepted per pass leaves "
    "it out. Identical: share of lists or texts equal to the reference arm's. "
    "Recording: seconds spent once on compiling and capturing for new shapes; part of no other number."
)
# How far ratio and median of a speedup may lie apart without a word.
_PARTED = 0.1

# A column's name, and how an arm's metrics fill it.
_Column = tuple[str, Callable[[Mapping[str, Any]], str | None]]


@dataclass(frozen=True)
class Report:
    """Arms side by side on the same users, or on the same prompts of text.

    Attributes:
        dataset: name of the data.
        settings: number of `users`, `batch_size`, `precision`, `device`, and what was asked for, by name.
        versions: software versions by name, see `software_versions`.
        seed: seed of sampled lists.
        command: the command line.
        reference: name of the reference arm.
        arms: each arm's metrics, in the order of the report.
    """

    dataset: str
    settings: dict[str, Any]
    versions: dict[str, str]
    seed: int
    command: str
    reference: str
    arms: dict[str, dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON, with None for numbers that are not finite."""
        content = asdict(self)
        settings = content.pop("settings")
        content = {"dataset": content.pop("dataset"), **settings, **content}
        return {name: _without_nan(value) for name, value in content.items()}

    def scalars(self) -> dict[str, float]:
        """Return every finite number as `test/<arm>/<metric>`, nested ones as `…/latency_ms/p50`."""
        return _numbers("test", self.arms)

    def markdown(self) -> str:
        """Return the report as Markdown: the main numbers of each arm, further ones, and the settings."""
        parts = [
            f"# Evaluation on {escape_markdown(self.dataset)}",
            markdown_table(*self._table(_MAIN_COLUMNS)),
            *self._remarks(),
            _HOW_TO_READ,
            "## Further numbers",
            markdown_table(*self._table([*self._further_speedups(), *_FURTHER_COLUMNS])),
            "## Settings",
            "\n".join(f"- {name}: {escape_markdown(value)}" for name, value in self._shown_settings().items()),
            f"```\n{self.command}\n```",
        ]
        return "\n\n".join(parts) + "\n"

    def summary(self) -> str:
        """Return the main numbers as a table for a terminal of 80 columns."""
        header, rows = self._table(_MAIN_COLUMNS)
        cells = [header, *([arm, *row[1:]] for arm, row in zip(self.arms, rows, strict=True))]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ("  ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]) for first, *others in cells)
        return "\n".join([*lines, *self._remarks()])

    def _table(self, columns: Sequence[_Column]) -> tuple[list[str], list[list[str]]]:
        """The header and one row per arm; columns that no arm has are left out."""
        cells = [(name, [cell(metrics) for metrics in self.arms.values()]) for name, cell in columns]
        known = [(name, column) for name, column in cells if any(cell is not None for cell in column)]
        header, contents = ["arm", *(name for name, _ in known)], [column for _, column in known]
        rows = [
            [escape_markdown(arm), *(cell or _MISSING for cell in row)]
            for arm, row in zip(self.arms, zip(*contents, strict=True), strict=True)
        ]
        return header, rows

    def _further_speedups(self) -> list[_Column]:
        """A column for each further reference."""
        keys = dict.fromkeys(key for metrics in self.arms.values() for key in metrics if f"{key}_ci95" in metrics)
        return [
            (f"over {escape_markdown(key.removeprefix(SPEEDUP_OVER))}", _speedup(key))
            for key in keys
            if key.startswith(SPEEDUP_OVER)
        ]

    def _remarks(self) -> list[str]:
        """Sentences on arms that are not lossless or whose speedup is doubtful, and on what arms draw on."""
        lossy = [
            f"{escape_markdown(arm)} is not lossless: it may write other lists than the target."
            for arm, metrics in self.arms.items()
            if not metrics.get("lossless", True)
        ]
        parted = [
            f"{escape_markdown(arm)}: the ratio of totals, {metrics['speedup']:.2f}, is far from the median, "
            f"{metrics['speedup_median']:.2f}: a few slow batches decide it. Evaluate again, without other load."
            for arm, metrics in self.arms.items()
            if abs(metrics["speedup"] / metrics["speedup_median"] - 1) > _PARTED
        ]
        chosen = [
            f"{escape_markdown(arm)} wrote "
            + ", ".join(f"{count:,} {kind} by {escape_markdown(name)}" for name, count in metrics[f"{kind}_by"].items())
            + "."
            for arm, metrics in self.arms.items()
            for kind in ("lists", "texts")
            if f"{kind}_by" in metrics
        ]
        drawn = [
            f"{escape_markdown(arm)} retrieves from {_pool(metrics['pool'])}."
            for arm, metrics in self.arms.items()
            if "pool" in metrics
        ]
        accepted = [
            f"{escape_markdown(arm)} accepted "
            + ", ".join(
                f"{count:,} tokens of {escape_markdown(name)}" for name, count in metrics["accepted_by"].items()
            )
            + "."
            for arm, metrics in self.arms.items()
            if "accepted_by" in metrics
        ]
        return lossy + parted + chosen + drawn + accepted

    def _shown_settings(self) -> dict[str, str]:
        return {
            **{name.replace("_", " "): _shown(value) for name, value in self.settings.items()},
            "reference arm": self.reference,
            "seed": str(self.seed),
            "versions": ", ".join(f"{name} {number}" for name, number in self.versions.items()),
        }

    def write(self, folder: Path) -> None:
        """Write `report.json` and `report.md`, see `write_report`."""
        write_report(folder, self.to_dict(), self.markdown())


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


def _pool(pool: Mapping[str, Any]) -> str:
    """What a pool holds, in words; see `RetrievalDraft.facts`."""
    size = f"{pool['texts']:,} earlier texts ({pool['tokens']:,} tokens) in {pool['groups']:,} groups"
    learned = ", finished ones among them" if pool["online"] else ""
    own = {True: ", earlier answers to the tested users included", False: ", none of tested users", None: ""}
    return size + learned + own[pool.get("own_answers")]


def _shown(value: object) -> str:
    """Format a setting."""
    if value is None:
        return "none"
    return format(value, "," if isinstance(value, int) else "g") if isinstance(value, int | float) else str(value)


def _number(key: str, form: str) -> Callable[[Mapping[str, Any]], str | None]:
    """Format the metric of that name, if the arm has it."""
    return lambda metrics: _format(metrics[key], form) if key in metrics else None


def _format(value: float | None, form: str) -> str:
    return format(value, form) if value is not None and math.isfinite(value) else _MISSING


def _speedup(key: str) -> Callable[[Mapping[str, Any]], str | None]:
    """Format the speedup of that name with its interval, if the arm has it."""

    def cell(metrics: Mapping[str, Any]) -> str | None:
        if key not in metrics:
            return None
        low, high = (_format(value, ".2f") for value in metrics[f"{key}_ci95"])
        return f"{_format(metrics[key], '.2f')} ({low} – {high})"

    return cell


def _identical(metrics: Mapping[str, Any]) -> str:
    share = metrics["identical_lists"] if "identical_lists" in metrics else metrics["identical_texts"]
    # A single list in 100,000 that differs must not be rounded away.
    return _format(share if share == 1 else min(share, 0.9999), ".0%" if share == 1 else ".2%")


def _latency(percentile: str) -> Callable[[Mapping[str, Any]], str]:
    """Format a percentile of the users' waiting times."""
    return lambda metrics: _format(metrics["latency_ms"][percentile], ",.1f")


_MAIN_COLUMNS: tuple[_Column, ...] = (
    ("speedup (95 %)", _speedup("speedup")),
    ("median", _number("speedup_median", ".2f")),
    ("τ", _number("acceptance_length", ".2f")),
    ("NDCG@10", _number("ndcg@10", ".4f")),
    ("identical", _identical),
    ("p50 ms", _latency("p50")),
)
_FURTHER_COLUMNS: tuple[_Column, ...] = (
    ("tokens/s", _number("tokens_per_second", ",.0f")),
    ("lists/s", _number("lists_per_second", ",.2f")),
    ("texts/s", _number("texts_per_second", ",.2f")),
    ("accepted per pass", _number("accepted_per_pass", ".2f")),
    ("target passes", _number("target_passes", ",.0f")),
    ("recall@10", _number("recall@10", ".4f")),
    ("p95 ms", _latency("p95")),
    ("recording (s)", _number("recording_seconds", ",.1f")),
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
