"""The notebooks run, and what git holds of them is small and says nothing of the machine."""

import json
import re
from pathlib import Path

import pytest

from docs.tools.notebooks import FOLDER, executed

_NOTEBOOKS = pytest.mark.parametrize("path", sorted(FOLDER.glob("*.ipynb")), ids=lambda path: path.stem)


@_NOTEBOOKS
def test_a_notebook_runs_from_top_to_bottom(path: Path, tmp_path: Path) -> None:
    outputs = [output for cell in executed(path, tmp_path).cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    (table,) = [output.text for output in outputs if output.get("name") == "stdout"]
    arms = [line for line in table.splitlines()[1:] if ":" not in line]  # without remarks on a busy machine
    assert re.findall(r"(\d+)%", "\n".join(arms)) == ["100"] * len(arms)  # identical lists


@_NOTEBOOKS
def test_a_notebook_is_small_and_says_nothing_of_the_machine(path: Path) -> None:
    """If not: `python docs/tools/notebooks.py`."""
    text = path.read_text(encoding="utf-8")
    assert len(text) < 150_000
    assert not re.search(r'[" ]/[a-z]+/', text)
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
