import subprocess
import sys
from pathlib import Path

import pytest

from experiments.ablations import run as grid_run
from experiments.ablations.run import Cell, run_cells
from padrec import InputError


class ScriptCell(Cell):
    """A cell whose program is a script."""

    def start(self, gpu: str | None) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-c", *self.program])


def cell(folder: Path, script: str, needs: tuple[Path, ...] = ()) -> Cell:
    folder.mkdir(exist_ok=True)
    return ScriptCell(folder, (script,), needs)


def test_cells_run_after_what_they_need_and_once(tmp_path: Path) -> None:
    order = tmp_path / "order"
    write = f"open({str(order)!r}, 'a').write"
    first, second, third = (tmp_path / name for name in "abc")
    cells = [
        cell(second, f"{write}('b')", (first,)),
        cell(first, f"{write}('a')"),
        cell(third, "1 / 0"),
        cell(tmp_path / "d", f"{write}('d')", (third,)),
    ]
    left = run_cells(cells, [None, None], 60)
    assert order.read_text() == "ab"
    assert [line.split(": ")[1] for line in left] == [f"failed, see {third}/log.txt", "left"]
    run_cells(cells[:2], [None], 60)
    assert order.read_text() == "ab"


def test_cells_end_with_the_time(tmp_path: Path) -> None:
    left = run_cells([cell(tmp_path / "a", "import time; time.sleep(60)")], [None], 0.5)
    assert left == [f"{tmp_path / 'a'}: interrupted"]


def test_names_that_the_grid_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="forms"):
        grid_run.run("tiny", forms=["nonsense"], root=tmp_path)
    assert not list(tmp_path.iterdir())
