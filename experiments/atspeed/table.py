"""The reports of compare.py as tables and a figure.

From the repository's root: python -m experiments.atspeed.table --folders '[runs/atspeed/beauty/compare]' --output …
"""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import one_hot
from torch.nn.utils.rnn import pad_sequence

from experiments.study import interval_of, run_command
from padrec.catalog import InputError
from padrec.evaluation.arm_metrics import quality_metric
from padrec.evaluation.report import check_writable, escape_markdown, markdown_table, write_report

_RESAMPLES = 2000
# What the reports of a row have in common.
_SETTING = ("dataset", "list_length", "batch_size", "temperature", "users", "precision", "device")

Row = dict[str, Any]


def tabulate(folders: Sequence[Path], output: Path) -> None:
    """Write report.json, report.md and speedup.png: a row for each setting and arm.

    Reports of the same setting, as those of several seeds, are one row: means, and intervals over seeds and users.

    Args:
        folders: searched for report.json files.
        output: folder of the report, new or without one.

    Raises:
        InputError: no report, or one that is already in `output`.
    """
    check_writable(output)
    paths = sorted(path for folder in folders for path in folder.glob("**/report.json"))
    if not paths:
        raise InputError(f"{[str(folder) for folder in folders]}: no report.json, expected those of compare.py")
    reports = [json.loads(path.read_text()) for path in paths]
    settings = sorted({tuple(report[name] for name in _SETTING) for report in reports})
    rows = [row for setting in settings for row in _rows(setting, reports)]
    write_report(output, {"reports": len(reports), "rows": rows}, markdown(rows))
    speedup_figure(rows).savefig(output / "speedup.png")


def _rows(setting: tuple[Any, ...], reports: Sequence[Mapping[str, Any]]) -> list[Row]:
    """One row for each arm of the reports with this setting."""
    arms: dict[str, list[Mapping[str, Any]]] = {}
    for report in reports:
        if tuple(report[name] for name in _SETTING) == setting:
            for name, metrics in report["arms"].items():
                arms.setdefault(name, []).append(metrics)
    return [dict(zip(_SETTING, setting, strict=True)) | {"arm": name} | _means(found) for name, found in arms.items()]


def _means(found: Sequence[Mapping[str, Any]]) -> Row:
    """Means over the reports, with intervals over these and their users."""
    ndcg = quality_metric(found[0])
    names = {
        "speedup": "speedup",
        "accepted_steps": "accepted_steps",
        "one_pass": "one_pass_users",
        "recall": ndcg.replace("ndcg", "recall"),
        "ndcg": ndcg,
    }
    row: Row = {key: sum(metrics[name] for metrics in found) / len(found) for key, name in names.items()}
    shares = resampled_shares([metrics["users_by_target_passes"] for metrics in found])  # [resamples, most + 1]
    row["one_pass_ci95"] = interval_of(shares[:, 0])
    for key in ("recall", "ndcg"):
        ends = [metrics["quality_ci95"][names[key]] for metrics in found]
        row[f"{key}_ci95"] = [sum(values) / len(found) for values in zip(*ends, strict=True)]  # the users are the same
    # Each step is accepted or costs a pass, so both have the same spread.
    passes = shares @ torch.arange(shares.shape[1], dtype=torch.float64)
    row["accepted_steps_ci95"] = interval_of(row["accepted_steps"] - (passes - passes.mean()))
    return row | {"reports": len(found), "speedup_ci95": found[0]["speedup_ci95"] if len(found) == 1 else None}


def resampled_shares(histograms: Sequence[Sequence[int]]) -> Tensor:
    """Bootstrap the share of users with 0, 1, … passes, from one histogram of the same users for each seed.

    A resample draws seeds, and then as many users as there are from all of them together: as they are the same users,
    a further seed does not make more of them.

    Returns:
        float64 `[resamples, most + 1]`.
    """
    generator = torch.Generator().manual_seed(0)
    counts = pad_sequence([torch.tensor(counts, dtype=torch.float64) for counts in histograms], batch_first=True)
    chosen = torch.randint(len(counts), (_RESAMPLES, len(counts)), generator=generator)
    users = torch.multinomial(counts[chosen].sum(1), int(counts[0].sum()), replacement=True, generator=generator)
    return one_hot(users, counts.shape[1]).double().mean(1)


def markdown(rows: Sequence[Row]) -> str:
    """A table for each setting."""
    header = ["arm", "speedup", "accepted steps", "one pass", "recall@K", "NDCG@K"]
    parts = ["# Beam searches", "Means over seeds; 95 % intervals over seeds and users, of speedups over users alone."]
    for setting, found in groupby(rows, lambda row: [row[name] for name in _SETTING]):
        dataset, length, batch, temperature, users, precision, device = setting
        parts.append(f"## {dataset}, K = {length}, batch {batch}, temperature {temperature:g}")
        parts.append(f"{users:,} users, {device}, {precision}")
        parts.append(markdown_table(header, [_cells(row) for row in found]))
    return "\n\n".join(parts) + "\n"


def _cells(row: Row) -> list[str]:
    def with_interval(key: str, form: str) -> str:
        ends = row[f"{key}_ci95"]
        between = "" if ends is None else f" ({' – '.join(format(end, form) for end in ends)})"
        return f"{row[key]:{form}}{between}"

    forms = {"speedup": ".2f", "accepted_steps": ".2f", "one_pass": ".0%", "recall": ".4f", "ndcg": ".4f"}
    return [escape_markdown(row["arm"]), *(with_interval(key, form) for key, form in forms.items())]


def speedup_figure(rows: Sequence[Row]) -> Figure:
    """Speedup of every arm over K, a panel for each batch size and temperature."""
    panels = list(dict.fromkeys((row["batch_size"], row["temperature"]) for row in rows))
    figure = Figure(figsize=(4 * len(panels), 4), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        shown = [row for row in rows if (row["batch_size"], row["temperature"]) == panel]
        for arm in dict.fromkeys(row["arm"] for row in shown):
            points = sorted((row["list_length"], row["speedup"]) for row in shown if row["arm"] == arm)
            axes.plot(*zip(*points, strict=True), marker="o", label=arm)
        axes.set(title=f"batch {panel[0]}, temperature {panel[1]:g}", xlabel="K", ylim=(0, None))
        axes.legend(frameon=False, fontsize="small")
    figure.supylabel("speedup over slot by slot")
    return figure


if __name__ == "__main__":
    run_command(tabulate)
