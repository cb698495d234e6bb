import json
from pathlib import Path

import pytest

from experiments.atspeed.shapes import measure, rounds_taken
from experiments.study import run_command


def test_a_draft_costs_the_rounds_that_users_took(tmp_path: Path) -> None:
    arms = {"draft-strict": {"acceptance_by_slot": [1.0, 0.75, 1.0, None]}}
    (tmp_path / "report.json").write_text(json.dumps({"arms": arms}))
    arguments = ["--shapes=[1x128]", "--draft_shape=1x128", "--history=8", "--repeats=2", "--device=cpu"]
    run_command(measure, [*arguments, f"--report={tmp_path / 'report.json'}", f"--output={tmp_path / 'shapes'}"])
    found = json.loads((tmp_path / "shapes/report.json").read_text())
    assert found["rounds_taken"] == [1, 0, 0.25, 0]
    (row,) = found["rows"]
    first, _, third, *_ = row["rounds_milliseconds"]
    assert row["drafted_milliseconds"] == pytest.approx(first + third / 4, rel=0.5)
    assert len(row["rounds_milliseconds"]) == 4


def test_a_round_continues_from_the_first_length_that_was_missed() -> None:
    assert rounds_taken([0.0, 0.0]) == [1, 1, 1]
    assert rounds_taken([0.5, 0.5]) == [1, 0.5, 0.5]
    assert rounds_taken([1.0, 1.0]) == [1, 0, 0]


def test_a_report_without_the_arm_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_text('{"arms": {}}')
    with pytest.raises(SystemExit):
        run_command(measure, [f"--report={tmp_path / 'report.json'}", f"--output={tmp_path / 'shapes'}"])
    assert "no acceptance_by_slot of an arm 'draft-strict'" in capsys.readouterr().err
