"""Evaluates the drafts of one seed at temperatures 0 and 1, with and without the catalog, in one process.

A process of its own for each of the four would compile the same functions again.
"""

import json
from pathlib import Path
from typing import Any

from experiments.study import run_command
from padrec import Prompts, Recommendations, SpeculativeEvaluator
from padrec.cli import main
from padrec.data import PromptBatch
from padrec.decoding import DecodingTrace

SETTINGS = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 1.0},
    "greedy-free": {"temperature": 0.0, "constraint": None},
    "sampled-free": {"temperature": 1.0, "constraint": None},
}
USERS_FILE = "users.json"


class PairedEvaluator(SpeculativeEvaluator):
    """Writes `users.json` beside the report, too: each user's tokens and target passes after the first one, by arm."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._traces: dict[str, dict[int, DecodingTrace]] = {}

    def decode(
        self, name: str, batch: PromptBatch, number: int, prompts: Prompts | None = None
    ) -> tuple[Recommendations, DecodingTrace]:
        """See `ArmComparison.decode`."""
        result, trace = super().decode(name, batch, number, prompts)
        self._traces.setdefault(name, {})[number] = trace  # replaces that of the warm-up
        return result, trace

    def on_test_epoch_end(self) -> None:
        """Write the report and what it leaves out."""
        super().on_test_epoch_end()
        found = {
            name: {
                "tokens": [n - 1 for trace in traces.values() for n in trace.tokens.tolist()],
                "passes": [n for trace in traces.values() for n in trace.target_passes.tolist()],
            }
            for name, traces in self._traces.items()
        }
        (self._folder / USERS_FILE).write_text(json.dumps(found))


def evaluate(comparison: Path) -> None:
    """Run `padrec test` for each setting that has no report yet.

    Args:
        comparison: the configuration; its folder gets a folder for each setting.
    """
    folder = comparison.parent
    for name, setting in SETTINGS.items():
        if (folder / name / USERS_FILE).exists():
            continue
        overlay = folder / f"{name}.json"
        logger = {"init_args": {"save_dir": str(folder), "name": name}}
        overlay.write_text(json.dumps({"trainer": {"logger": logger}, "model": {"init_args": setting}}))
        (folder / name / "report.json").unlink(missing_ok=True)  # of a run that ended between the two files
        (folder / name / "report.md").unlink(missing_ok=True)
        main(["test", "--config", str(comparison), "--config", str(overlay)])


if __name__ == "__main__":
    run_command(evaluate)
