import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments.atspeed.compare import compare
from experiments.atspeed.one_target import read_once
from experiments.atspeed.table import tabulate
from experiments.study import run_command
from padrec.data import SemanticIDDataModule, SyntheticReader
from tests.tiny_training import tiny_atspeed, tiny_recommender

_REPOSITORY = Path(__file__).parents[3]
# Four slots, for which widths.yaml has lists of widths.
_READER: dict[str, Any] = {
    "n_users": 31,
    "n_items": 30,
    "codebook_sizes": [5, 6, 7, 3],
    "mean_length": 7,
    "duplicates": 0.1,
}
_OBJECTIVES = ("top_k_alignment", "total_variation", "word_kd", "tvd_kd", "seq_kd")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """What run.sh leaves, without having trained."""
    sizes: dict[str, Any] = {"list_length": 3, "max_history": 3, "batch_size": 8, "eval_batch_size": 4, "max_users": 7}
    data = SemanticIDDataModule(SyntheticReader(**_READER), **sizes)
    target = tmp_path / "target/checkpoints/best.ckpt"
    tiny_recommender(data).save_pretrained(target)
    for objective in _OBJECTIVES:
        tiny_atspeed(data, target).save_pretrained(tmp_path / f"seed-1/{objective}/checkpoints/best.ckpt")
    return tmp_path


def tiny_config(folder: Path) -> Path:
    reader = {"class_path": "padrec.SyntheticReader", "init_args": _READER}
    trainer = {"precision": "32-true", "accelerator": "cpu", "enable_progress_bar": False}
    config = {"trainer": trainer, "data": {"init_args": {"reader": reader, "max_history": 3}}}
    (folder / "tiny.yaml").write_text(yaml.dump(config))
    return folder / "tiny.yaml"


def test_every_setting_gets_a_report_once_and_all_of_them_a_table(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(_REPOSITORY)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setenv("ATSPEED_RUNS", "")
    monkeypatch.setenv("ATSPEED_SEED", "")

    def run() -> dict[str, int]:
        compare(runs, lengths=[3], batches=[4], seeds=[1], users=7, transformers_users=2, configs=[tiny_config(runs)])
        return {path.parent.name: path.stat().st_mtime_ns for path in runs.glob("compare/*/report.json")}

    read_before = read_once.cache_info().misses
    written = run()
    assert read_once.cache_info().misses == read_before + 1
    assert set(written) == {
        "k3-batch4-t0",
        "k3-batch4-t1",
        "widths-batch4",
        "transformers",
        "objectives-seed1-t0",
        "objectives-seed1-t1",
    }
    assert run() == written
    arms = json.loads((runs / "compare/k3-batch4-t0/report.json").read_text())["arms"]
    assert arms["draft-strict"]["identical_lists"] == arms["catalog-strict"]["identical_lists"] == 1
    assert {name for name in arms["beam-steps"] if name.startswith("recall@")} == {"recall@1", "recall@3"}

    run_command(tabulate, [f"--folders=[{runs / 'compare'}]", f"--output={runs / 'table'}"])
    rows = json.loads((runs / "table/report.json").read_text())["rows"]
    assert len(rows) == 5 + 6 + 8 + 3 + 6 + 11
    assert {row["list_length"] for row in rows} == {3, 10}
    assert "transformers-beam" in (runs / "table/report.md").read_text()


def test_runs_without_a_target_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run_command(compare, [f"--runs={tmp_path}"])
    assert caught.value.code == 2
    assert "expected what experiments/atspeed/run.sh writes" in capsys.readouterr().err
