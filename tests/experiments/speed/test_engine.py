import json
from pathlib import Path

import pytest

from experiments.speed.engine import measure
from experiments.study import run_command

_TINY = "--shapes=[2x128] --batches=[1,2] --prefixes=[16,24] --nodes=[1,3] --repeats=2 --catalog_items=500 --device=cpu"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("engine") / "report"
    run_command(measure, [f"--output={output}", *_TINY.split()])
    return output


def test_every_size_is_measured(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    found = report["shapes"]["2x128"]
    sizes = [(row["batch"], row["prefix"], row["nodes"]) for row in found["target_pass"]]
    assert sizes == [(batch, prefix, nodes) for batch in (1, 2) for prefix in (16, 24) for nodes in (1, 3)]
    for row in found["target_pass"]:
        low, high = row["milliseconds_ci95"]
        assert 0 < low <= row["milliseconds"] <= high
        assert row["times_floor"] == pytest.approx(row["milliseconds"] / found["floor_ms"])
        assert row["times_floor_with_past"] < row["times_floor"]
    assert [row["batch"] for row in found["round"]] == [1, 2]
    for row in found["round"]:
        assert row["nodes"] == 64  # 48 of the draft's tree, 16 for forced tokens
        assert row["round_over_passes"] > 0
    assert [(row["batch"], row["nodes"]) for row in found["constraint_share"]] == [(1, 1), (1, 3), (2, 1), (2, 3)]
    assert report["constraint"]["items"] == 500
    assert report["bandwidth"]["nominal_bytes_per_second"] == 4.3e12


def test_the_report_says_how_it_came_about(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    assert report["precision"] == "float32"
    assert report["command"].startswith("python -m experiments.speed.engine")
    assert {"torch", "transformers", "padrec"} <= report["versions"].keys()
    text = (folder / "report.md").read_text()
    assert text.count("\n## ") == 4  # bandwidth, one shape, constraint, settings
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(tables) == sum(1 + 1 + rows for rows in (2, 2, 4))
    assert list(folder.glob("events.out.tfevents.*"))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--shapes=[28x]", "shape '28x': expected LAYERSxWIDTH"),
        ("--batches=[0]", "batches [0]: expected numbers from 1"),
        ("--nodes=[]", "nodes []: expected numbers from 1"),
        ("--device=abacus", "device 'abacus'"),
    ],
)
def test_wrong_input_gets_one_message(
    argument: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run_command(measure, [f"--output={tmp_path / 'new'}", *_TINY.split(), argument])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not (tmp_path / "new").exists()


def test_an_existing_report_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_command(measure, [f"--output={folder}", *_TINY.split()])
    assert "report.json: there already" in capsys.readouterr().err
