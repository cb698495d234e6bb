"""The measurement of residual k-means on made-up embeddings."""

import json
from pathlib import Path

import pytest
import torch

from experiments.quantizers.million_items import made_up, measure
from experiments.study import run_command


def test_a_report_of_time_and_memory(tmp_path: Path) -> None:
    small = ["--items", "300", "--dimension", "8", "--slots", "2", "--codes", "16", "--fit_items", "200"]
    run_command(measure, ["--output", str(tmp_path / "small"), "--device", "cpu", *small])
    report = json.loads((tmp_path / "small" / "report.json").read_text(encoding="utf-8"))
    assert report["fit_seconds"] > 0
    assert report["encode_seconds"] > 0
    assert report["gigabytes"] >= report["gigabytes_before"] > 0
    assert report["codebook_sizes"] == [16, 16]
    # 256 codes for 300 items: at the very least these cannot all be different.
    assert report["collisions"] >= 300 - 256
    assert "| collisions |" in (tmp_path / "small" / "report.md").read_text(encoding="utf-8")


def test_a_size_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_command(measure, ["--output", str(tmp_path), "--items", "0"])
    assert capsys.readouterr().err == "error: items [0]: expected numbers from 1\n"


def test_a_sample_that_is_none_is_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        # More items than the memory holds.
        run_command(measure, ["--output", str(tmp_path), "--items", str(10**12), "--fit_items", "0"])
    assert "fit_items is 0" in capsys.readouterr().err


def test_later_directions_are_weaker() -> None:
    spread = made_up(20_000, 16, seed=0, chunk=999).var(0)
    assert torch.allclose(spread, 1 / torch.arange(1.0, 17.0), rtol=0.1)
