import json
from pathlib import Path

import pytest

from experiments.atspeed.shapes import main


def test_a_draft_costs_the_rounds_that_users_took(tmp_path: Path) -> None:
    arms = {"draft-strict": {"users_by_target_passes": [3, 1, 0, 0]}}
    (tmp_path / "report.json").write_text(json.dumps({"arms": arms}))
    arguments = ["--shapes=[1x128]", "--draft_shape=1x128", "--history=8", "--repeats=2", "--device=cpu"]
    main([*arguments, f"--report={tmp_path / 'report.json'}", f"--output={tmp_path / 'shapes'}"])
    found = json.loads((tmp_path / "shapes/report.json").read_text())
    assert found["shares_by_pass"] == [1, 0.25, 0, 0]
    (row,) = found["rows"]
    first, second, *_ = row["rounds_milliseconds"]
    assert row["drafted_milliseconds"] == pytest.approx(first + second / 4, rel=0.5)
    assert len(row["rounds_milliseconds"]) == 4


def test_a_report_without_the_arm_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_text('{"arms": {}}')
    with pytest.raises(SystemExit):
        main([f"--report={tmp_path / 'report.json'}", f"--output={tmp_path / 'shapes'}"])
    assert "no users_by_target_passes of an arm 'draft-strict'" in capsys.readouterr().err
