"""The measurement of `padrec prepare` on made-up logs."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from experiments.prepare.large_logs import measure, write_log
from experiments.study import run_command


def test_a_report_of_every_log(tmp_path: Path) -> None:
    run_command(measure, ["--output", str(tmp_path / "logs"), "--interactions", "[20000]", "--items", "500"])
    report = json.loads((tmp_path / "logs" / "report.json").read_text(encoding="utf-8"))
    (log,) = report["logs"]
    assert log["interactions"] == log["counts"]["read"] == 20000
    assert 0 < log["counts"]["interactions"] < 20000
    # Printing the help loads every class that could be named, preparing only those that are.
    assert log["peak_mebibytes"] > 0 < report["start"]["peak_mebibytes"]
    assert "| 20,000 |" in (tmp_path / "logs" / "report.md").read_text(encoding="utf-8")


def test_a_report_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_text("{}", encoding="utf-8")
    with pytest.raises(SystemExit):
        run_command(measure, ["--output", str(tmp_path)])
    assert "already" in capsys.readouterr().err


def test_what_an_interrupted_run_has_left_is_not_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "20000").mkdir()
    with pytest.raises(SystemExit):
        run_command(measure, ["--output", str(tmp_path)])
    assert "expected an empty folder" in capsys.readouterr().err


def test_logs_are_written_in_pieces(tmp_path: Path) -> None:
    write_log(tmp_path / "log.parquet", 1_000_001, 10, seed=0)
    assert pq.ParquetFile(tmp_path / "log.parquet").metadata.num_rows == 1_000_001
