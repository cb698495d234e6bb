from pathlib import Path

import pytest

from padrec.cli import main
from padrec.cli.experiments_command import shipped_experiments

_EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_every_experiment_is_listed_with_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    main(["experiments", "list"])
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert list(lines) == list(shipped_experiments())
    assert lines["quickstart"] == "The whole job on made-up data: target, drafts, evaluation"
    assert lines["laser"].startswith("Drafts by retrieval (LASER)")


@pytest.mark.parametrize("target", [None, "mine", "deep/er/mine"])
def test_an_experiment_is_copied_whole(target: str | None, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["experiments", "copy", "quickstart", *([target] if target else [])])
    copy = folder / (target or "experiments/quickstart")
    assert files(copy) == files(_EXPERIMENTS / "quickstart")
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]
    assert capsys.readouterr().out == f"{target or 'experiments/quickstart'}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("copy nonsense", "experiment 'nonsense': expected one of ablations, atspeed, "),
        ("copy quickstart full", "full: there already, expected nothing or an empty folder"),
        ("copy quickstart full/file/x", "full/file/x: cannot be written (File exists)"),
        ("copy", "name"),
        ("", "{list,copy}"),
    ],
)
def test_wrong_input_gets_one_message_and_changes_nothing(
    arguments: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "full").mkdir()
    (folder / "full" / "file").write_text("mine")
    with pytest.raises(SystemExit) as end:
        main(["experiments", *arguments.split()])
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert files(folder) == {"full/file": b"mine"}
