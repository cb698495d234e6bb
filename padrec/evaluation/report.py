"""The report of a comparison: `report.json` for programs, `report.md` for people."""

import json
import math
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from padrec.catalog import InputError
from padrec.catalog.whole_output import check_place, written_whole
from padrec.data.json_file import read_json_object
from padrec.evaluation.arm_metrics import SPEEDUP_OVER, quality_metric
from padrec.evaluation.arm_numbers import ArmNumbers, column
from padrec.version import __version__

_JSON, _MARKDOWN = "report.json", "report.md"
_MARKDOWN_SIGNS = str.maketrans({sign: f"\\{sign}" for sign in "\\`*[]|"} | {"<": "&lt;", "&": "&amp;"})
_HOW_TO_READ = (
    "Speedup: total seconds of the reference arm ÷ total seconds of the arm over the same users; median: that of the "
    "same ratio in each batch. τ: tokens per target pass, including the target's own token; accepted per pass leaves "
    "it out. Identical: share of lists or texts equal to the reference arm's. "
    "Recording: seconds spent once on compiling and capturing for new shapes; part of no other number."
)
# Settings that every report has.
_NUMBERS = ("users", "batch_size", "temperature")
# Those of the main table before and after the quality, and those of further tables.
_MAIN_COLUMNS = (
    ("speedup", "speedup_median", "acceptance_length"),
    ("identical_lists", "identical_texts", "latency_ms/p50"),
)
_FURTHER_COLUMNS = (
    *("tokens_per_second", "lists_per_second", "texts_per_second"),
    *("latency_ms/p95", "recording_seconds"),
)
_PASS_COLUMNS = ("target_passes", "one_pass_users", "accepted_per_pass", "accepted_steps", "accepted_share")
# A larger relative difference between the ratio and the median of a speedup is worth a remark.
_PARTED = 0.1


@dataclass(frozen=True)
class Report:
    """Arms side by side on the same users, or on the same prompts of text."""

    dataset: str
    settings: dict[str, Any]  # number of `users`, `batch_size`, `precision`, `device`, and what was asked for, by name
    versions: dict[str, str]  # of software, by name, see `software_versions`
    seed: int  # of sampled lists
    command: str
    reference: str  # name of the reference arm
    arms: dict[str, dict[str, Any]]  # each arm's metrics, in the order of the report

    @classmethod
    def read(cls, path: Path) -> "Report":
        """Read a `report.json`, or that of a folder; one that is no comparison of arms is an InputError."""
        file = path if path.is_file() or path.suffix == ".json" else path / _JSON
        found = read_json_object(file, "with the arms of `padrec test`")
        arms = found.get("arms")
        if not isinstance(arms, dict) or not all(isinstance(arm, dict) and "speedup" in arm for arm in arms.values()):
            raise InputError(f"{file}: no arms with a speedup, expected a report.json of SpeculativeEvaluator")
        own = {entry.name for entry in fields(cls)} - {"settings"}
        if missing := sorted({*own, *_NUMBERS} - {*found, "reference"}):
            raise InputError(f"{file}: no {', '.join(missing)}, expected a report.json of SpeculativeEvaluator")
        for name in _NUMBERS:
            if not isinstance(found[name], int | float):
                raise InputError(f"{file}: {name} is {found[name]!r}, expected a number")
        settings = {name: value for name, value in found.items() if name not in own}
        known: dict[str, Any] = {name: found.get(name) for name in own}
        return cls(**known | {"settings": settings, "reference": found.get("reference", next(iter(arms), ""))})

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON, with None for numbers that are not finite."""
        content = asdict(self)
        settings = content.pop("settings")
        content = {"dataset": content.pop("dataset"), **settings, **content}
        return {name: _without_nan(value) for name, value in content.items()}

    def scalars(self) -> dict[str, float]:
        """Return every finite number as `test/<arm>/<metric>`, nested ones as `…/latency_ms/p50`."""
        return {
            f"test/{arm}/{name}": value
            for arm, metrics in self.arms.items()
            for name, value in ArmNumbers.of(metrics).values.items()
        }

    def markdown(self) -> str:
        """Return the report as Markdown: the main numbers of each arm, further ones, and the settings."""
        parts = [
            f"# Evaluation on {escape_markdown(self.dataset)}",
            markdown_table(*self._table(self._main_columns())),
            *self._remarks(),
            _HOW_TO_READ,
            "## Further numbers",
            markdown_table(*self._table([*self._further_speedups(), *_FURTHER_COLUMNS])),
            markdown_table(*self._table([*_PASS_COLUMNS, *self._rankings()])),
            "## Settings",
            "\n".join(f"- {name}: {escape_markdown(value)}" for name, value in self.shown_settings().items()),
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

    def _table(self, keys: Sequence[str]) -> tuple[list[str], list[list[str]]]:
        """The header and one row per arm, without columns that no arm has."""
        numbers = {arm: ArmNumbers.of(metrics) for arm, metrics in self.arms.items()}
        known = {name for metrics in self.arms.values() for name in metrics}
        columns = [column(key) for key in keys if key.partition("/")[0] in known]
        rows = [[escape_markdown(arm), *(shown.cell(found) for shown in columns)] for arm, found in numbers.items()]
        return ["arm", *(escape_markdown(shown.heading) for shown in columns)], rows

    def _main_columns(self) -> list[str]:
        speed, comparison = _MAIN_COLUMNS
        return [*speed, quality_metric(self._rankings()), *comparison]

    def _rankings(self) -> list[str]:
        """Names of the ranking metrics by leaf."""
        return [name for name in next(iter(self.arms.values())) if name.startswith(("ndcg@", "recall@"))]

    def _further_speedups(self) -> list[str]:
        """The speedups over further references."""
        keys = dict.fromkeys(key for metrics in self.arms.values() for key in metrics if f"{key}_ci95" in metrics)
        return [key for key in keys if key.startswith(SPEEDUP_OVER)]

    def _remarks(self) -> list[str]:
        return [f"{escape_markdown(arm)}{remark}" for arm, metrics in self.arms.items() for remark in _remarks(metrics)]

    def shown_settings(self) -> dict[str, str]:
        """Return what the numbers depend on, as text by name."""
        return {
            **{name.replace("_", " "): _shown(value) for name, value in self.settings.items()},
            "reference arm": self.reference,
            "seed": str(self.seed),
            "versions": ", ".join(f"{name} {number}" for name, number in self.versions.items()),
        }

    def write(self, folder: Path) -> None:
        """Write `report.json` and `report.md`, see `write_report`."""
        write_report(folder, self.to_dict(), self.markdown())


def main_metrics(metrics: Iterable[str]) -> tuple[str, ...]:
    """Which of an arm's metrics `trainer.test` returns and TensorBoard's HParams tab shows.

    Four at most: the tab shows five columns, and the first of them is Lightning's `epoch`, which every fit has.
    """
    main = ("speedup", "tokens_per_second", "acceptance_length", quality_metric(metrics))
    return tuple(name for name in main if name in metrics)


def write_report(folder: Path, content: Mapping[str, Any], markdown: str) -> None:
    """Write `report.json`, where numbers that are not finite become null, and `report.md`, each whole or not at all."""
    rendered = json.dumps(_without_nan(content), indent=2, ensure_ascii=False, allow_nan=False)
    with written_whole(folder / _MARKDOWN) as readable, written_whole(folder / _JSON) as whole:
        readable.write_text(markdown, encoding="utf-8")
        whole.write_text(rendered + "\n", encoding="utf-8")


def check_writable(folder: Path) -> None:
    """Check that no report is there and one can be written, before any long work starts."""
    for name in (_JSON, _MARKDOWN):
        check_place(folder / name)


def software_versions() -> dict[str, str]:
    """Return the versions of what affects results and speed, by name; `cuda` only if torch was built with it."""
    packages = ("torch", "lightning", "transformers", "torchmetrics")
    found = {"padrec": __version__, **{name: version(name) for name in packages}, "python": platform.python_version()}
    return found if torch.version.cuda is None else found | {"cuda": torch.version.cuda}


def escape_markdown(text: str) -> str:
    """Escape text so that Markdown shows it literally, on one line, also inside a table."""
    return " ".join(text.split()).translate(_MARKDOWN_SIGNS)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """Return a Markdown table of escaped cells; all columns but the first `text_columns` are aligned to the right."""
    rule = ["---" if column < text_columns else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def counted(number: int, noun: str) -> str:
    """Write how many there are: `1 group`, `1,200 groups`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _remarks(metrics: Mapping[str, Any]) -> Iterator[str]:
    """What to say of an arm that is not lossless or whose speedup is doubtful, and of what it draws on."""
    if not metrics.get("lossless", True):
        yield " is not lossless: it may write other lists or texts than the target."
    speedup, median = metrics["speedup"], metrics["speedup_median"]
    if abs(speedup / median - 1) > _PARTED:
        yield (
            f": the ratio of totals, {speedup:.2f}, is far from the median, {median:.2f}: a few slow batches decide "
            "it. Evaluate again, without other load."
        )
    for kind in ("lists", "texts"):
        if counts := metrics.get(f"{kind}_by"):
            yield f" wrote {_listed(counts, f'{kind} by')}."
    if "pool" in metrics:
        yield f" retrieves from {_pool(metrics['pool'])}."
    if counts := metrics.get("accepted_by"):
        yield f" accepted {_listed(counts, 'tokens of')}."


def _listed(counts: Mapping[str, int], what: str) -> str:
    return ", ".join(f"{count:,} {what} {escape_markdown(name)}" for name, count in counts.items())


def _pool(pool: Mapping[str, Any]) -> str:
    """What a pool holds, in words; see `RetrievalDraft.facts`."""
    texts, tokens = counted(pool["texts"], "earlier text"), counted(pool["tokens"], "token")
    by = f" by {pool['grouped_by']}" if "grouped_by" in pool else ""
    size = f"{texts} ({tokens}) in {counted(pool['groups'], 'group')}{by}"
    learned = ", finished ones among them" if pool["online"] else ""
    own = {True: ", earlier answers to the tested users included", False: ", none of tested users", None: ""}
    time = f", {pool['look_up_ms']:.3g} ms for a look-up" if "look_up_ms" in pool else ""
    return size + learned + own[pool.get("own_answers")] + time


def _shown(value: object) -> str:
    if value is None:
        return "none"
    return format(value, "," if isinstance(value, int) else "g") if isinstance(value, int | float) else str(value)


def _without_nan(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
