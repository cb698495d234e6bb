import json
from pathlib import Path
from typing import Any

import pytest

from experiments.speed.round_profile import measure, phase_times
from experiments.study import run_command


def annotation(name: str, start: float, duration: float) -> dict[str, Any]:
    return {"ph": "X", "cat": "user_annotation", "name": name, "ts": start, "dur": duration}


def launch(number: int, start: float, category: str = "cuda_runtime") -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": "launch", "ts": start, "dur": 1, "args": {"correlation": number}}


def kernel(number: int, duration: float, category: str = "kernel") -> dict[str, Any]:
    return {"cat": category, "name": "k", "ts": 9e6, "dur": duration, "args": {"correlation": number}}


_ROUND = [
    annotation("padrec: tree building", 0, 100),
    annotation("padrec: draft passes", 10, 30),
    annotation("padrec: draft passes", 50, 20),
    annotation("padrec: target pass", 100, 400),
    annotation("ProfilerStep#1", 0, 600),
]


def test_without_kernels_a_phase_has_the_time_that_is_its_own() -> None:
    milliseconds, kernels = phase_times(_ROUND)
    assert milliseconds == pytest.approx({"tree building": 0.05, "draft passes": 0.05, "target pass": 0.4})
    assert not kernels


def test_a_kernel_belongs_to_the_innermost_phase_that_launched_it() -> None:
    launches = [launch(1, 5), launch(2, 20, "cuda_driver"), launch(3, 60), launch(4, 300), launch(5, 550)]
    kernels = [kernel(1, 8), kernel(2, 2), kernel(3, 3), kernel(4, 100), kernel(5, 7, "gpu_memcpy"), kernel(6, 1)]
    milliseconds, counts = phase_times([*_ROUND, *launches, *kernels])
    assert milliseconds == pytest.approx(
        {"tree building": 0.008, "draft passes": 0.005, "target pass": 0.1, "other": 0.008}
    )
    assert counts == {"tree building": 1, "draft passes": 2, "target pass": 1, "other": 2}


def test_every_phase_of_a_round_gets_a_share(tmp_path: Path) -> None:
    output = tmp_path / "profile"
    run_command(
        measure,
        [f"--output={output}", "--shape=2x128", "--batches=[2]", "--profiled_rounds=2", "--repeats=2", "--device=cpu"],
    )
    report = json.loads((output / "report.json").read_text())
    rows = {row["decoder"]: row for row in report["rounds"]}
    assert list(rows) == ["autoregressive", "forced", "speculative"]
    shared = {"target pass", "tree building", "acceptance", "keeping"}
    assert rows["autoregressive"]["phases"].keys() == shared
    assert rows["speculative"]["phases"].keys() == shared | {"draft passes"}
    for row in rows.values():
        busy = sum(phase["milliseconds"] for phase in row["phases"].values())
        assert row["idle_ms"] == pytest.approx(row["round_ms"] - busy)
        assert all(phase["milliseconds"] > 0 for phase in row["phases"].values())
    assert "| speculative | 2 |" in (output / "report.md").read_text()
