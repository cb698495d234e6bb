import json
from pathlib import Path

import pytest

from experiments.speed.beam import measure
from experiments.study import run_command


def test_every_row_is_measured_with_every_plan(tmp_path: Path) -> None:
    run_command(measure, [f"--output={tmp_path / 'report'}", '--rows=["1x128,20,3,2"]', "--repeats=2", "--device=cpu"])
    rows = json.loads((tmp_path / "report" / "report.json").read_text())["rows"]
    assert [row["plan"] for row in rows] == ["slot by slot", "reading ahead"]
    for row in rows:
        assert (row["shape"], row["history"], row["beam"], row["batch"]) == ("1x128", 20, 3, 2)
        assert row["milliseconds"] > row["prefill_milliseconds"] > 0


def test_what_is_no_row_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_command(measure, [f"--output={tmp_path / 'report'}", '--rows=["28x1024,128,10"]'])
    assert "row '28x1024,128,10': expected SHAPE,HISTORY,BEAM,BATCH, such as" in capsys.readouterr().err
