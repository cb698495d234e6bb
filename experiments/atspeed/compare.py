"""All beam searches of a data set side by side, from the checkpoints of run.sh: one report for each setting.

From the repository's root: python -m experiments.atspeed.compare --runs runs/atspeed/beauty
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments.study import check_positive, run_command
from padrec.catalog import InputError
from padrec.cli import main as padrec

_CONFIGS = Path("experiments/atspeed")
_EVALUATOR = "experiments.atspeed.one_target.OneTargetEvaluator"
_CUTOFFS = (1, 3, 5, 10, 20)
_LENGTHS = (10, 20, 5, 1, 3)
Part = Literal["arms", "widths", "transformers", "objectives"]


@dataclass(frozen=True)
class Evaluation:
    """One call of `padrec test`."""

    name: str
    overrides: tuple[str, ...]
    users: int
    length: int = 10
    batch: int = 1
    temperature: float = 0.0
    seed: int = 0  # of the drafts

    def arguments(self, runs: Path, configs: Sequence[Path]) -> list[str]:
        """The command line; later arguments win."""
        files = [_CONFIGS / "evaluate.yaml", *(_CONFIGS / f"{name}.yaml" for name in self.overrides), *configs]
        settings = {
            "trainer.logger.init_args.save_dir": runs / "compare",
            "trainer.logger.init_args.name": self.name,
            "data.init_args.max_users": self.users,
            "data.init_args.list_length": self.length,
            "data.init_args.eval_batch_size": self.batch,
            "model.init_args.temperature": self.temperature,
            "model.init_args.cutoffs": [k for k in _CUTOFFS if k <= self.length],
        }
        overlays = [word for file in files for word in ("--config", str(file))]
        overlays += ["--model", _EVALUATOR]
        return ["test", *overlays, *(word for name, value in settings.items() for word in (f"--{name}", str(value)))]


def compare(
    runs: Path,
    parts: Sequence[Part] = ("arms", "widths", "objectives", "transformers"),
    lengths: Sequence[int] = _LENGTHS,
    batches: Sequence[int] = (1, 32),
    temperatures: Sequence[float] = (0.0, 1.0),
    seeds: Sequence[int] = (0,),
    users: int = 320,
    transformers_users: int = 100,
    configs: Sequence[Path] = (),
) -> None:
    """Run every evaluation that has no report yet, and write it to a folder of its own below `runs`/compare.

    They run one after another, in the order of the arguments. The target is read once, and what is compiled for one
    serves all with the same shapes. An interruption loses only the evaluation that it hits.

    `k10-batch1-t0` and so on compare the arms of evaluate.yaml, or sampled.yaml above temperature 0, with the drafts of
    the first seed; `widths-batch1` and so on those of widths.yaml, `transformers` those of transformers.yaml.
    `objectives-seed0-t0` and so on compare the drafts of all objectives, 32 users at a time. All but the first make
    lists of 10.

    Args:
        runs: what run.sh wrote for a data set.
        parts: which of these comparisons.
        lengths: K, items in a list, of the arms' comparison.
        batches: users at a time, of the first two comparisons. Numbers that divide `users` spare another capture.
        temperatures: 0 is greedy.
        seeds: of the drafts.
        users: the first ones of the test are decoded for.
        transformers_users: the same beside transformers, which is slow.
        configs: further overrides, such as games.yaml.

    Raises:
        InputError: a number that is none, or no target in `runs`.
    """
    check_positive(lengths=lengths, batches=batches, users=[users, transformers_users])
    if not (runs / "target/checkpoints/best.ckpt").exists():
        raise InputError(f"{runs}: no target/checkpoints/best.ckpt, expected what experiments/atspeed/run.sh writes")

    plans: dict[Part, list[Evaluation]] = {
        "arms": [
            Evaluation(f"k{k}-batch{batch}-t{degree:g}", _drawn("sampled", degree), users, k, batch, degree, seeds[0])
            for batch in batches
            for k in lengths
            for degree in temperatures
        ],
        "widths": [Evaluation(f"widths-batch{n}", ("widths",), users, batch=n, seed=seeds[0]) for n in batches],
        "transformers": [Evaluation("transformers", ("transformers",), transformers_users, seed=seeds[0])],
        "objectives": [
            Evaluation(f"objectives-seed{seed}-t{degree:g}", overrides, users, 10, 32, degree, seed)
            for seed in seeds
            for degree in temperatures
            for overrides in [("objectives", *_drawn("objectives_sampled", degree))]
        ],
    }
    for evaluation in (one for part in parts for one in plans[part]):
        if not (runs / "compare" / evaluation.name / "report.json").exists():
            os.environ |= {"ATSPEED_RUNS": str(runs), "ATSPEED_SEED": str(evaluation.seed)}
            sys.argv = ["padrec", *evaluation.arguments(runs, configs)]  # where reports find their command
            padrec()


def _drawn(override: str, temperature: float) -> tuple[str, ...]:
    """The override for drawn beams, where they are drawn."""
    return (override,) if temperature > 0 else ()


if __name__ == "__main__":
    run_command(compare)
