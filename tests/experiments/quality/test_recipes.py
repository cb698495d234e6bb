from pathlib import Path

import pytest

from padrec.cli import main

_STUDY = Path(__file__).parents[3] / "experiments" / "quality"
_OVERLAYS = sorted(path.relative_to(_STUDY).as_posix() for path in _STUDY.glob("*/*.yaml"))


@pytest.mark.parametrize("overlay", _OVERLAYS)
def test_every_overlay_fits_the_target(overlay: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fit", f"--config={_STUDY / 'target.yaml'}", f"--config={_STUDY / overlay}", "--print_config"])
    assert caught.value.code == 0, capfd.readouterr().err
