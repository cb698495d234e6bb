import json
import random
from pathlib import Path

import torch

from experiments.reliability.flips import Written, flipped, measure
from experiments.study import run_command


def test_no_flipped_bit_goes_unnoticed(tmp_path: Path) -> None:
    run_command(measure, [f"--output={tmp_path}", "--flips=1", "--items=64", "--interactions=500"])
    report = json.loads((tmp_path / "report.json").read_text())
    assert {row["read"] for row in report["files"]} == {
        *("target folder", "draft folder", "catalog folder", "prepared folder"),
        *("embeddings", "target checkpoint", "draft checkpoint"),
    }
    total = report["total"]
    assert total["flips"] == len(report["files"]) == total["refused"] + total["harmless"]
    assert "| all |" in (tmp_path / "report.md").read_text()


def test_what_is_read_unnoticed_is_counted_and_the_file_restored(tmp_path: Path) -> None:
    path = tmp_path / "plain"
    path.write_bytes(bytes(8))
    read = Written(
        "plain", path, lambda: {"numbers": [torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)]}
    )
    found = flipped(path, read, 3, random.Random(0))
    assert (found["file"], found["bytes"], found["flips"], found["other_data"]) == ("plain", 8, 3, 3)
    first_byte = flipped(path, Written("first byte", tmp_path, lambda: path.read_bytes()[0]), 8, random.Random(0))
    assert first_byte["harmless"] + first_byte["other_data"] == 8
    assert first_byte["harmless"] > 0
    text = flipped(path, Written("text", tmp_path, lambda: path.read_bytes().decode("ascii")), 64, random.Random(0))
    assert text["other_error"] > 0
    assert path.read_bytes() == bytes(8)
