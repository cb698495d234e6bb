from pathlib import Path

import pytest

from experiments.quality.choose import best_validation, choose
from padrec import InputError


def write_run(runs: Path, name: str, *values: float) -> Path:
    """A log as Lightning writes it: rows of training have no validation."""
    rows = ["epoch,step,train/loss,val/ndcg@10,val/recall@10", "0,1,3.0,,"]
    rows += [f"{epoch},{epoch * 10},,{value},{2 * value}" for epoch, value in enumerate(values)]
    (runs / name).mkdir(parents=True)
    (runs / name / "metrics.csv").write_text("\n".join(rows) + "\n")
    return runs / name


def test_the_best_validation_is_the_one_whose_weights_were_kept(tmp_path: Path) -> None:
    run = write_run(tmp_path, "shipped-base", 0.01, 0.03, 0.02)
    assert best_validation(run) == {"epoch": 1, "step": 10, "val/ndcg@10": 0.03, "val/recall@10": 0.06}


def test_the_best_of_the_asked_for_runs_is_chosen(tmp_path: Path) -> None:
    for name, value in (("shipped-base", 0.02), ("shipped-small", 0.03), ("behaviour-base", 0.04), ("list-a", 0.9)):
        write_run(tmp_path, name, value)
    (tmp_path / "shipped-failed").mkdir()
    write_run(tmp_path, "shipped-unvalidated")
    assert choose(tmp_path, ["shipped"]).name == "shipped-small"
    assert choose(tmp_path, ["shipped", "behaviour"]).name == "behaviour-base"
    with pytest.raises(InputError, match="no validated run item-…"):
        choose(tmp_path, ["item"])
