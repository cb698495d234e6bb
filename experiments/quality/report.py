"""Puts the study together: how every recipe did on validation users, and the chosen ones' test.

```bash
python -m experiments.quality.report --runs runs/quality --output docs/results/quality
```
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.quality.choose import METRIC, best_validation, choose
from experiments.study import chosen_device, run_command
from padrec import InputError
from padrec.decoding.device.device_name import device_name
from padrec.evaluation.report import markdown_table, software_versions, write_report

_COMMAND = "bash experiments/quality/run.sh"
_QUALITY = ("recall@5", "recall@10", "ndcg@5", "ndcg@10")
# Of each the fit that validated best is tested.
_GROUPS = ("shipped", "behaviour", "narrow", "sequence", "pair", "item")
_SETTINGS = ("dataset", "users", "batch_size", "precision", "device")
_ARM = (*_QUALITY, "valid_items", "distinct_items")
# Tests share the device with one another; only this one ran alone, and only its times are of use.
_COST = "cost"
_TIMES = ("seconds", "target_passes", "lists_per_second", "latency_ms")


def study(runs: Path) -> dict[str, Any]:
    """All that was measured below a folder of runs.

    Args:
        runs: written by `run.sh`. Fits and tests that are not there are left out.

    Raises:
        InputError: there is no validated fit.
    """
    validated: dict[str, dict[str, float]] = {}
    for log in sorted(runs.glob("*/metrics.csv")):
        try:
            validated[log.parent.name] = best_validation(log.parent)
        except InputError:
            continue
    if not validated:
        raise InputError(f"{runs}: no validated fit, expected what `{_COMMAND}` writes")
    seconds = runs / "seconds.txt"
    return {
        "command": _COMMAND,
        "device": device_name(chosen_device(None)[0]),
        "versions": software_versions(),
        "chosen_on_validation": _chosen(runs),
        "validation": validated,
        "test": {path.parent.name: _test(path) for path in sorted(runs.glob("test/*/report.json"))},
        "sasrec": {path.parent.name: _sasrec(path) for path in sorted(runs.glob("sasrec/*/test.json"))},
        "seconds": seconds.read_text().splitlines() if seconds.is_file() else [],
    }


def _chosen(runs: Path) -> dict[str, str]:
    chosen = {}
    for group in (*_GROUPS, *(f"list-{group}" for group in _GROUPS)):
        try:
            chosen[group] = choose(runs, [group]).name
        except InputError:
            continue
    return chosen


def _sasrec(path: Path) -> dict[str, dict[str, float]]:
    """Scores of both parts by `score_lists.py`."""
    return {part: json.loads(path.with_name(f"{part}.json").read_text()) for part in ("validation", "test")}


def _test(path: Path) -> dict[str, Any]:
    report = json.loads(path.read_text())
    kept = _ARM + (_TIMES if path.parent.name == _COST else ())
    arms = {name: {key: metrics[key] for key in kept if key in metrics} for name, metrics in report["arms"].items()}
    return {name: report[name] for name in _SETTINGS} | {"arms": arms}


def markdown(content: Mapping[str, Any]) -> str:
    """The study as tables."""
    validation = [
        [name, f"{row['epoch'] + 1:.0f}", f"{row['val/recall@10']:.4f}", f"{row[METRIC]:.4f}"]
        for name, row in sorted(content["validation"].items(), key=lambda entry: -entry[1][METRIC])
    ]
    test = [
        [name, arm, f"{report['users']:,}", *(f"{metrics[key]:.4f}" for key in _QUALITY)]
        for name, report in content["test"].items()
        if name != _COST
        for arm, metrics in report["arms"].items()
    ]
    chosen = ", ".join(f"{group}: {name}" for group, name in content["chosen_on_validation"].items())
    versions = ", ".join(f"{name} {number}" for name, number in content["versions"].items())
    parts = [
        "# Quality on Amazon Beauty",
        "Best validation of every fit. Fits named list-… are validated by the lists they write, the others by beam "
        "search.",
        markdown_table(["fit", "epochs", "recall@10", "NDCG@10"], validation),
        f"Chosen by NDCG@10 of the validation users: {chosen}.",
        "Test users, the chosen fits alone. The arm `autoregressive` writes lists.",
        markdown_table(["target", "arm", "users", *_QUALITY], test),
        *_sasrec_table(content["sasrec"]),
        *_cost(content["test"].get(_COST)),
        f"{content['device']}; {versions}; seconds of the stages: {'; '.join(content['seconds'])}",
        f"```\n{content['command']}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _sasrec_table(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    if not found:
        return []
    rows = [
        [name, f"{scores['validation']['ndcg@10']:.4f}", *(f"{scores['test'][key]:.4f}" for key in _QUALITY)]
        for name, scores in sorted(found.items(), key=lambda entry: -entry[1]["validation"]["ndcg@10"])
    ]
    return [
        "SASRec of RecTools on the same split, the best validation first; all other columns are of the test users.",
        markdown_table(["SASRec", "validation NDCG@10", *_QUALITY], rows),
    ]


def _cost(report: Mapping[str, Any] | None) -> list[str]:
    if report is None:
        return []
    rows = [
        [arm, f"{metrics['target_passes'] / report['users']:.1f}", f"{metrics['latency_ms']['p50']:.1f}"]
        for arm, metrics in report["arms"].items()
    ]
    return [
        f"What a list of ten costs, {report['users']} users one at a time, nothing else on the device:",
        markdown_table(["arm", "target passes behind the prompt's", "p50 latency (ms)"], rows),
    ]


def report(output: Path, runs: Path = Path("runs/quality")) -> None:
    """Write `report.json` and `report.md`.

    Args:
        output: a folder without a report.
        runs: see `study`.
    """
    content = study(runs)
    write_report(output, content, markdown(content))


if __name__ == "__main__":
    run_command(report)
