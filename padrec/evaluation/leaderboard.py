"""Any number of reports in one table and one figure."""

import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from importlib.resources import files
from io import StringIO
from itertools import count, takewhile
from pathlib import Path
from string import Template
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from padrec.catalog import InputError
from padrec.catalog.whole_output import written_whole
from padrec.evaluation.arm_numbers import MISSING, ArmNumbers, column
from padrec.evaluation.figures import speedup_panels
from padrec.evaluation.report import Report, escape_markdown, markdown_table

COLUMNS = ("speedup", "acceptance_length", "accepted_per_pass", "latency_ms/p50", "ndcg@10", "identical_lists")
_HOW_TO_READ = (
    "Speedup: total seconds of the report's reference arm ÷ total seconds of the arm, so speedups of different reports "
    "have different references. τ: tokens per target pass, including the target's own token. In parentheses: 95 % "
    "intervals, over users for one seed, over seeds (Student's t) for several. Identical: share of lists equal to the "
    "reference arm's."
)


@dataclass(frozen=True)
class Row:
    """One arm of one report, or of several that differ in their seed alone."""

    report: str
    arm: str
    seeds: int  # how many the numbers are means of
    numbers: ArmNumbers


class Leaderboard:
    """Arms of any number of reports side by side.

    Args:
        reports: reports by name, in the order of the table.
        columns: keys of the numbers to show, as `acceptance_length` or `latency_ms/p50`.
        arms: the arms to show, in this order; None shows all.
        seeds: whether to combine seeds: arms of the same name in reports with equal settings, and arms of one report
            named `<arm>-0`, `<arm>-1` and so on.

    Raises:
        InputError: no report, or a column or arm that none has.
    """

    def __init__(
        self,
        reports: Mapping[str, Report],
        columns: Sequence[str] = COLUMNS,
        arms: Sequence[str] | None = None,
        seeds: bool = False,
    ) -> None:
        if not reports:
            raise InputError("no reports, expected at least one")
        self._reports = dict(reports)
        rows = _rows(self._reports, seeds)
        self.rows = rows if arms is None else _chosen(rows, arms)
        self._columns = [column(key) for key in columns]
        known = dict.fromkeys(name for row in self.rows for name in row.numbers.values)
        for shown in self._columns:
            if shown.key not in known:
                raise InputError(f"columns: {shown.key!r} is in no report, expected some of {', '.join(known)}")

    def markdown_table(self) -> str:
        """Return the table in Markdown."""
        texts, header, rows = len(self._names()), *self._table
        return markdown_table(_escaped(header), [_escaped(row) for row in rows], text_columns=texts)

    def _names(self) -> dict[str, list[str]]:
        """The columns that tell rows apart; the report's name only where there are several."""
        names = {"report": [row.report for row in self.rows], "arm": [row.arm for row in self.rows]}
        return names if len(set(names["report"])) > 1 else {"arm": names["arm"]}

    @cached_property
    def _table(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows as plain text; the number of seeds only where there are several."""
        columns = list(self._names().items())
        if any(row.seeds > 1 for row in self.rows):
            columns.append(("seeds", [str(row.seeds) for row in self.rows]))
        columns += [(shown.heading, [shown.cell(row.numbers) for row in self.rows]) for shown in self._columns]
        headings, cells = zip(*columns, strict=True)
        return list(headings), [list(row) for row in zip(*cells, strict=True)]

    def figure(self) -> Figure:
        """Return bars of all speedups with their intervals, a panel for each report."""
        panels: dict[str, dict[str, ArmNumbers]] = {}
        for row in self.rows:
            panels.setdefault(row.report, {})[row.arm] = row.numbers
        if len(panels) > 1:
            return speedup_panels(panels)
        (report, *_), (panel,) = self._reports.values(), panels.values()
        settings = report.settings
        device, users, batch = settings.get("device"), settings["users"], settings["batch_size"]
        title = f"{report.dataset}, {device}, {users} users, {batch} at a time"
        return speedup_panels({title: panel})

    def svg(self) -> str:
        """Return the figure as SVG: the same text for the same reports, without a date or ids drawn at random."""
        text = StringIO()
        with matplotlib.rc_context({"svg.hashsalt": "padrec"}):
            self.figure().savefig(text, format="svg", metadata={"Date": None})
        return text.getvalue()

    def write(self, folder: Path) -> None:
        """Write `leaderboard.md`, `leaderboard.html` and `leaderboard.svg`, all or none of them, to a new folder."""
        figure = self.svg()
        with written_whole(folder) as part:
            part.mkdir()
            (part / "leaderboard.svg").write_text(figure, encoding="utf-8")
            (part / "leaderboard.md").write_text(self._markdown(), encoding="utf-8")
            (part / "leaderboard.html").write_text(self._html(figure), encoding="utf-8")

    def _markdown(self) -> str:
        header, rows = self._settings
        parts = [
            "# Leaderboard",
            self.markdown_table(),
            "![Speedup of every arm with its 95 % interval](leaderboard.svg)",
            _HOW_TO_READ,
            "## Reports",
            markdown_table(_escaped(header), [_escaped(row) for row in rows], text_columns=len(header)),
        ]
        return "\n\n".join(parts) + "\n"

    def _html(self, figure: str) -> str:
        """One page that needs no other file, with the figure in SVG."""
        page = (files("padrec.evaluation") / "leaderboard.html").read_text(encoding="utf-8")
        return Template(page).substitute(
            table=_html_table("board", *self._table),
            figure=figure[figure.index("<svg") :],
            how_to_read=escape(_HOW_TO_READ),
            settings=_html_table("settings", *self._settings),
        )

    @cached_property
    def _settings(self) -> tuple[list[str], list[list[str]]]:
        """A row for each setting, a column for each report."""
        settings = [
            {"dataset": report.dataset, **report.shown_settings(), "command": report.command}
            for report in self._reports.values()
        ]
        names = dict.fromkeys(name for found in settings for name in found)
        return ["", *self._reports], [[name, *(found.get(name, MISSING) for found in settings)] for name in names]


def read_reports(folders: Sequence[Path]) -> dict[str, Report]:
    """Read `report.json` of each folder, none given twice; the names are what the folders' paths do not share."""
    places = [Path(os.path.abspath(folder.parent if folder.is_file() else folder)) for folder in folders]
    if twice := [str(place) for place in dict.fromkeys(places) if places.count(place) > 1]:
        raise InputError(f"{twice[0]}: given twice, expected every report once")
    shared = os.path.commonpath([place.parent for place in places])
    return {str(place.relative_to(shared)): Report.read(folder) for place, folder in zip(places, folders, strict=True)}


def _numbers(metrics: Mapping[str, Any]) -> ArmNumbers:
    """An arm's numbers, those of quality with their intervals, for which a report's own tables have no room."""
    return ArmNumbers.of(
        {**metrics, **{f"{name}_ci95": pair for name, pair in metrics.get("quality_ci95", {}).items()}}
    )


def _rows(reports: Mapping[str, Report], seeds: bool) -> list[Row]:
    """A row for each arm of each report, or of each setting over its seeds."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, report in reports.items():
        groups.setdefault(_settings_but_seed(report) if seeds else (name,), []).append(name)
    numbers: dict[tuple[str, str], list[ArmNumbers]] = {}
    for names in groups.values():
        for arms in (reports[name].arms for name in names):
            for arm, metrics in arms.items():
                place = (", ".join(names), _without_seed(arm, arms) if seeds else arm)
                numbers.setdefault(place, []).append(_numbers(metrics))
    return [Row(name, arm, len(found), ArmNumbers.over_seeds(found)) for (name, arm), found in numbers.items()]


def _settings_but_seed(report: Report) -> tuple[str, ...]:
    settings = report.shown_settings()
    return report.dataset, *(value for name, value in settings.items() if name not in ("seed", "versions"))


def _without_seed(arm: str, arms: Container[str]) -> str:
    """`hass` for `hass-0` to `hass-2`; not for `chain-5`, nor for a `draft-0` alone."""
    name, _, number = arm.rpartition("-")
    numbered = takewhile(lambda seed: f"{name}-{seed}" in arms, count())
    seeds = [str(seed) for seed in numbered]
    return name if name and number in seeds and len(seeds) > 1 else arm


def _chosen(rows: Sequence[Row], arms: Sequence[str]) -> list[Row]:
    known = dict.fromkeys(row.arm for row in rows)
    for arm in arms:
        if arm not in known:
            raise InputError(f"arms: {arm!r} is in no report, expected some of {', '.join(known)}")
    order = {name: place for place, name in enumerate(dict.fromkeys(row.report for row in rows))}
    chosen = [row for row in rows if row.arm in arms]
    return sorted(chosen, key=lambda row: (order[row.report], list(arms).index(row.arm)))


def _escaped(cells: Sequence[str]) -> list[str]:
    return [escape_markdown(cell) for cell in cells]


def _html_table(kind: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    sides = ["" if cell[:1].isdigit() or cell[:1] in "–-" else ' class="text"' for cell in rows[0]]
    body = "".join(_html_row("td", row, sides) for row in rows)
    return f'<table class="{kind}"><thead>{_html_row("th", header, sides)}</thead><tbody>{body}</tbody></table>'


def _html_row(tag: str, cells: Sequence[str], sides: Sequence[str]) -> str:
    """Cells, each with the attribute of its column."""
    written = (f"<{tag}{side}>{escape(cell)}</{tag}>" for cell, side in zip(cells, sides, strict=True))
    return f"<tr>{''.join(written)}</tr>"
