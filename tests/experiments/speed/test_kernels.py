from pathlib import Path

import pytest

from experiments.speed.kernels import measure
from experiments.study import run_command


@pytest.mark.parametrize(
    ("argument", "message"), [("--kernels=[head]", "expected some of"), ("--device=cpu", "needs a machine with a CUDA")]
)
def test_what_cannot_be_measured_is_refused(
    argument: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run_command(measure, [f"--output={tmp_path / 'report'}", argument])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
