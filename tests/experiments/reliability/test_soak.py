import json
from pathlib import Path

from experiments.reliability.soak import measure
from experiments.study import run_command


def test_no_list_differs_whatever_drafts_return(tmp_path: Path) -> None:
    run_command(measure, [f"--output={tmp_path / 'soak'}", "--minutes=0.02"])
    report = json.loads((tmp_path / "soak" / "report.json").read_text())
    assert len(report["rows"]) == 8  # four decoders at two temperatures
    assert all(row["lists"] > 0 and row["differing"] == 0 for row in report["rows"])
    assert report["megabytes"] > 0
