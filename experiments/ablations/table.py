"""Tables and plots of the grid's evaluations.

From the repository's root: python -m experiments.ablations.table --folders '[runs/ablations/middle/beauty]' --output …
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from experiments.ablations.evaluate import SETTINGS, USERS_FILE
from experiments.study import interval_of, run_command
from padrec.evaluation.report import markdown_table, write_report

_RESAMPLES = 2000
_LENGTH, _ACCEPTED, _IDENTICAL = "acceptance_length", "accepted_per_pass", "identical_lists"
_BY_SLOT, _BY_DEPTH = "acceptance_by_slot", "acceptance_by_depth"
_METRICS = (_LENGTH, _ACCEPTED, _IDENTICAL, _BY_SLOT, _BY_DEPTH)

Row = dict[str, Any]


def tabulate(folders: Sequence[Path], output: Path) -> None:
    """Write report.json, report.md and gains.png: a row for each dataset, setting and draft, over its seeds.

    Args:
        folders: of datasets, with the folders evaluation-0, ….
        output: folder of the report; replaces one that is there.
    """
    rows = [row for folder in folders for setting in SETTINGS for row in _rows(folder, setting)]
    if not rows:
        return
    for name in ("report.json", "report.md"):
        (output / name).unlink(missing_ok=True)
    write_report(output, {"rows": rows}, markdown(rows))
    gains_figure(rows).savefig(output / "gains.png")


def _rows(folder: Path, setting: str) -> list[Row]:
    """One row for each draft, over the seeds that were evaluated."""
    metrics, users = defaultdict[str, Row](dict), defaultdict[str, Row](dict)  # by draft and seed
    for place in sorted(path.parent for path in folder.glob(f"evaluation-*/{setting}/{USERS_FILE}")):
        _, seed, _ = place.parent.name.split("-")
        arms = json.loads((place / "report.json").read_text())["arms"]
        for name, counts in json.loads((place / USERS_FILE).read_text()).items():
            metrics[name][seed], users[name][seed] = arms[name], counts
    rows = []
    for name in metrics:
        if name == "autoregressive":
            continue
        row: Row = {"dataset": folder.name, "setting": setting, "draft": name, "seeds": len(metrics[name])}
        row |= {key: _mean([found[key] for found in metrics[name].values()]) for key in _METRICS}
        base = f"{name.partition('-')[0]}-none"
        seeds = sorted(users[name].keys() & users[base].keys()) if base in metrics and base != name else []
        if seeds:
            row["gain"] = gain([users[name][seed] for seed in seeds], [users[base][seed] for seed in seeds])
        rows.append(row)
    return rows


def _mean(values: Sequence[Any]) -> Any:  # noqa: ANN401  # numbers, or lists of them
    """The mean over seeds; of lists, number by number, NaN where nothing was attempted."""
    if isinstance(values[0], list):
        return [
            _mean([math.nan if number is None else number for number in numbers])
            for numbers in zip(*values, strict=True)
        ]
    return sum(values) / len(values)


def gain(drafts: Sequence[Mapping[str, Any]], bases: Sequence[Mapping[str, Any]]) -> list[float]:
    """By how much τ is larger than the base's, with its 95 % interval: users and seeds drawn anew, both in pairs.

    Args:
        drafts: tokens and passes of the users, for each seed.
        bases: the same of the base.

    Returns:
        The relative gain, and the ends of its interval.
    """
    counts = torch.tensor([[[arm["tokens"], arm["passes"]] for arm in arms] for arms in (drafts, bases)]).double()
    n_seeds, n_users = counts.shape[1], counts.shape[-1]
    generator = torch.Generator().manual_seed(0)
    weights = torch.ones(1 + _RESAMPLES, n_users).double()
    for row in weights[1:]:
        row[:] = torch.randint(n_users, (n_users,), generator=generator).bincount(minlength=n_users)
    seeds = torch.randint(n_seeds, (1 + _RESAMPLES, n_seeds), generator=generator)
    seeds[0] = torch.arange(n_seeds)
    sums = torch.einsum("asku,ru->rask", counts, weights)  # [R, draft or base, seeds, tokens or passes]
    sums = sums.gather(2, seeds[:, None, :, None].expand(-1, 2, -1, 2)).sum(2)
    lengths = sums[..., 0] / sums[..., 1]
    gains = lengths[:, 0] / lengths[:, 1] - 1
    return [float(gains[0]), *interval_of(gains[1:])]


def markdown(rows: Sequence[Row]) -> str:
    """A table for each dataset and setting."""
    parts = ["# Position-aware drafts"]
    for dataset, setting in dict.fromkeys((row["dataset"], row["setting"]) for row in rows):
        found = [row for row in rows if (row["dataset"], row["setting"]) == (dataset, setting)]
        n_slots = len(found[0][_BY_SLOT])
        header = [
            "draft",
            "seeds",
            "τ",
            "gain over its base",
            "accepted per pass",
            *(f"slot {n}" for n in range(n_slots)),
            "identical",
        ]
        parts += [f"## {dataset}, {setting}", markdown_table(header, [_cells(row) for row in found])]
    return "\n\n".join(parts)


def _cells(row: Row) -> list[str]:
    gained = "" if "gain" not in row else "{:+.1%} ({:+.1%} … {:+.1%})".format(*row["gain"])
    numbers = [
        f"{row[_LENGTH]:.3f}",
        gained,
        f"{row[_ACCEPTED]:.3f}",
        *("" if math.isnan(share) else f"{share:.1%}" for share in row[_BY_SLOT]),
    ]
    return [row["draft"], str(row["seeds"]), *numbers, f"{row[_IDENTICAL]:.1%}"]


def gains_figure(rows: Sequence[Row]) -> Figure:
    """Gains over the base with their intervals, a panel for each setting, and below acceptance by depth."""
    settings, datasets = (list(dict.fromkeys(row[key] for row in rows)) for key in ("setting", "dataset"))
    figure = Figure(figsize=(4.2 * len(settings), 8), dpi=110, layout="constrained")
    panels: Any = figure.subplots(2, len(settings), squeeze=False)
    drafts = list(dict.fromkeys(row["draft"] for row in rows if "gain" in row))
    for above, below, setting in zip(*panels, settings, strict=True):
        above.set_title(setting, loc="left")
        for number, dataset in enumerate(datasets):
            found = [row for row in rows if (row["dataset"], row["setting"]) == (dataset, setting)]
            gains = {row["draft"]: row["gain"] for row in found if "gain" in row}
            places = [drafts.index(name) + 0.15 * number for name in gains]
            middle, low, high = 100 * torch.tensor(list(gains.values())).view(-1, 3).T
            above.errorbar(
                middle, places, xerr=torch.stack([middle - low, high - middle]), fmt="o", label=dataset, capsize=2
            )
            for row in found:
                if row["draft"].endswith(("-none", "-padrec")):
                    line = "--" if row["draft"].endswith("-none") else "-"
                    below.plot(
                        range(1, 1 + len(row[_BY_DEPTH])),
                        row[_BY_DEPTH],
                        line,
                        color=f"C{number}",
                        label=f"{dataset}, {row['draft']}",
                    )
        above.axvline(0, color="black", linewidth=0.8)
        above.set_yticks(range(len(drafts)), drafts)
        above.set_xlabel("gain in τ over the base, %")
        below.set(xlabel="draft depth", ylabel="accepted share", ylim=(0, 1))
    panels[0][0].legend(frameon=False, fontsize=8)
    panels[1][0].legend(frameon=False, fontsize=7)
    return figure


if __name__ == "__main__":
    run_command(tabulate)
