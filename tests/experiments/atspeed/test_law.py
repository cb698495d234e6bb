import json
from pathlib import Path

import pytest

from experiments.atspeed.law import measure, without_replacement
from experiments.study import run_command


def test_the_law_of_drawing_two_of_three_is_enumerated() -> None:
    law = without_replacement([0.5, 0.3, 0.2], 2)
    assert sum(law.values()) == pytest.approx(1)
    assert law[(0, 1)] == pytest.approx(0.5 * 0.3 / 0.5 + 0.3 * 0.5 / 0.7)


def test_the_sound_rule_keeps_the_law_and_the_relaxed_one_does_not(tmp_path: Path) -> None:
    run_command(
        measure, [f"--output={tmp_path / 'law'}", "--widths=[[3,2]]", "--distances=[0.0]", "--cases=2", "--draws=4000"]
    )
    sound, relaxed = json.loads((tmp_path / "law" / "report.json").read_text())["rows"]
    assert sound["rule"] == "sound"
    assert sound["total_variation"] < 0.05 < relaxed["total_variation"]
    assert sound["accepted"] == relaxed["accepted"] == 1
