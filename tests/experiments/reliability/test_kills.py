import json
import random
import signal
from pathlib import Path

import pytest

from experiments.reliability.kills import disturbed, measure
from experiments.reliability.padrec_commands import PadrecCommand
from experiments.study import run_command


class Torn(PadrecCommand):
    """Writes its output in place, so that a kill leaves half of it; goes on as if it were whole."""

    def killed_after(self, seconds: float | None, *further: str) -> int:
        if self.output.exists():
            return 0
        self.output.parent.mkdir()
        self.output.write_text("half" if seconds is not None else "half and half")
        return 0 if seconds is None else -signal.SIGKILL


def test_killed_preparations_end_as_undisturbed_ones(tmp_path: Path) -> None:
    run_command(measure, [f"--output={tmp_path}", "--commands=[prepare]", "--kills=1", "--interactions=500"])
    (row,) = json.loads((tmp_path / "report.json").read_text())["commands"]
    assert row["kills"] == row["whole"] + row["absent"] == 1
    assert row["runs"] == row["equal"] > 0
    assert row["damaged"] == row["left_over"] == 0
    assert "| prepare |" in (tmp_path / "report.md").read_text()


def test_half_an_output_is_damaged_and_its_run_not_equal(tmp_path: Path) -> None:
    found = disturbed(Torn([], tmp_path / "folder" / "out"), kills=2, draw=random.Random(0))
    expected = {"kills": 2, "damaged": 2, "whole": 0, "absent": 0, "runs": 2, "equal": 0}
    assert {name: found[name] for name in expected} == expected


def test_a_failure_without_any_kill_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_command(measure, [f"--output={tmp_path}", "--commands=[prepare]", "--interactions=1"])
    assert "status 2, expected 0: padrec: error: " in capsys.readouterr().err
