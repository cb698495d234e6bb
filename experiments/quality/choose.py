"""Names the run with the best ranking of the validation users.

```bash
python -m experiments.quality.choose shipped behaviour --runs runs/quality
```
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from padrec import InputError

METRIC = "val/ndcg@10"


def validations(run: Path) -> list[dict[str, float]]:
    """A run's validations in time order: epoch, step and every `val/…`.

    Args:
        run: the folder of a fit with a `CSVLogger`.

    Raises:
        InputError: the fit has no log, or has not validated.
    """
    path = run / "metrics.csv"
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected the log of a fit")
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get(METRIC)]
    if not rows:
        raise InputError(f"{path}: no {METRIC}, expected a fit that has validated")
    names = [name for name in rows[0] if name.startswith("val/")]
    return [{name: float(row[name]) for name in ("epoch", "step", *names)} for row in rows]


def best_validation(run: Path) -> dict[str, float]:
    """The validation whose weights the fit has kept."""
    return max(validations(run), key=lambda row: row[METRIC])


def choose(runs: Path, prefixes: Sequence[str]) -> Path:
    """The run with the best validation among those named `<prefix>-…`.

    Fits that failed before their first validation are left out.

    Raises:
        InputError: there is none.
    """
    found: dict[Path, float] = {}
    for run in sorted(run for prefix in prefixes for run in runs.glob(f"{prefix}-*")):
        try:
            found[run] = best_validation(run)[METRIC]
        except InputError:
            continue
    if not found:
        raise InputError(f"{runs}: no validated run {' or '.join(f'{prefix}-…' for prefix in prefixes)}")
    return max(found, key=lambda run: found[run])


def main() -> None:
    """Print the name of the chosen run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prefixes", nargs="+", help="semantic IDs of the runs to choose from")
    parser.add_argument("--runs", type=Path, default=Path("runs/quality"))
    arguments = parser.parse_args()
    try:
        print(choose(arguments.runs, arguments.prefixes).name)
    except InputError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
