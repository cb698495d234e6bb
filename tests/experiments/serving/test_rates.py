import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.serving import rates
from experiments.serving.load import ServiceProcess
from padrec.catalog import InputError


class Running:
    """A service that another one runs."""

    figures = ServiceProcess.figures
    port: int

    def __init__(self, *_: Any) -> None:
        self.process = SimpleNamespace(send_signal=lambda number: None)

    def counts(self) -> tuple[int, int]:
        figures = self.figures()  # type: ignore[misc]  # knows the port
        return int(figures["request_seconds_count"]), 0


def test_the_highest_rate_with_answers_in_time_is_found(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "ServiceProcess", type("Here", (Running,), {"port": port}))
    users = tmp_path / "users.jsonl"
    users.write_text('{"user": 1, "history": ["item-1"]}\n{"user": 2, "history": [7]}\n')
    rates.measure("", tmp_path / "all", str(users), rates=[20, 40], seconds=0.3, most_ms=5000)
    report = json.loads((tmp_path / "all" / "report.json").read_text())
    assert report["lists_per_second"] == 40
    assert report["lost"] == 0
    assert report["alone"]["answered"] > 1
    rates.measure("", tmp_path / "none", str(users), rates=[20, 40], seconds=0.3, most_ms=0)
    report = json.loads((tmp_path / "none" / "report.json").read_text())
    assert report["lists_per_second"] == 0
    assert [row["offered_per_second"] for row in report["rates"]] == [20, 40]
    users.write_text('{"user": 1, "history": ["item-1"], "items": ["item-2"]}\n')
    rates.measure("", tmp_path / "predicted", str(users), rates=[20], seconds=0.3)
    report = json.loads((tmp_path / "predicted" / "report.json").read_text())
    assert report["alone"]["differing"] == report["alone"]["answered"]
    users.write_text('{"user": 1}\n')
    with pytest.raises(InputError, match="without a history"):
        rates.measure("", tmp_path / "wrong", str(users))
