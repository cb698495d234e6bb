"""What the program says of places and files that it cannot use."""

from pathlib import Path

import pytest

from padrec.cli import main

_CONF = Path(__file__).parent / "conf"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("fit --trainer.logger.init_args.save_dir={tmp}/file", "Not a directory, expected files that can be read"),
        (
            "fit --trainer.logger=false --trainer.callbacks.init_args.dirpath={tmp}/file/below",
            "checkpoint: cannot be written (Not a directory)",
        ),
        ("fit --ckpt_path=best", "--ckpt_path best: expected a file, such as"),
        ("test --ckpt_path=last", "--ckpt_path last: expected a file, such as"),
        ("fit --config={tmp}/binary", "binary: byte 0 is not UTF-8, expected a config in YAML"),
    ],
)
def test_a_place_that_cannot_be_used_is_one_message(
    arguments: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PADREC_TEST_RUNS", str(tmp_path / "runs"))
    (tmp_path / "file").touch()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    command, *others = arguments.format(tmp=tmp_path).split()
    with pytest.raises(SystemExit) as end:
        main([command, f"--config={_CONF / 'target.yaml'}", *others])
    assert end.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("padrec: error: ")
    assert message in error
