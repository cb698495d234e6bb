"""The speedups of a report as a figure; that of the README is drawn by

    python -m experiments.speed.speedup_figure docs/results/speed/greedy/report.json docs/speedup.svg \
        --arms autoregressive forced eagle hass padrec
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import torch

from padrec.evaluation import ArmResult
from padrec.evaluation.figures import speedup_with_interval


def results(report: dict[str, Any], arms: list[str]) -> list[ArmResult]:
    """Arms of a report; the distributions, which reports do not hold, are left empty."""
    nothing = torch.zeros(0)
    return [ArmResult(name, report["arms"][name], torch.zeros(0, 0), nothing, nothing) for name in arms]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("figure", type=Path, help="file to write; its suffix says in which format")
    parser.add_argument("--arms", nargs="+", help="in the order of the bars; by default all of them")
    arguments = parser.parse_args()
    report = json.loads(arguments.report.read_text(encoding="utf-8"))
    figure = speedup_with_interval(results(report, arguments.arms or list(report["arms"])))
    axes = figure.axes[0]
    # The title of the figure in TensorBoard does not say on what it was measured.
    axes.set_title(
        f"{report['dataset']}, {report['device']}, {report['users']} users, {report['batch_size']} at a time",
        loc="left",
    )
    # The same file from the same report: no date, and ids that are not drawn at random.
    matplotlib.rcParams["svg.hashsalt"] = "padrec"
    figure.savefig(arguments.figure, metadata={"Date": None} if arguments.figure.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
