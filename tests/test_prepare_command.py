"""`padrec prepare`: from files as they are published to a fit."""

import json
import shlex
from pathlib import Path

import pytest

from padrec.cli import main
from padrec.data.preparation.prepared_folder import PreparedFolder
from tests.data.preparation.made_up_log import random_log

_TARGET = Path(__file__).parent / "conf" / "target.yaml"
_SOURCE = "--source padrec.TableLog --source.interactions [{tmp}/log.csv] --source.rating stars"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A folder with a log and semantic IDs."""
    rows = [f"{user},{item},{time},{rating}\n" for user, item, time, rating in random_log()]
    (tmp_path / "log.csv").write_text("user,item,time,stars\n" + "".join(rows))
    index = {f"i{item}": [f"<a_{item // 5}>", f"<b_{item % 5}>", "<c_0>"] for item in range(25)}
    (tmp_path / "index.json").write_text(json.dumps(index))
    return tmp_path


def prepare(arguments: str, folder: Path) -> None:
    main(["prepare", *shlex.split(arguments.format(tmp=folder))])


def test_a_log_is_prepared_and_trained_on(
    log: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    split = "--split padrec.TimeSplit --split.ratios [0.7,0.2,0.1]"
    prepare(f"{_SOURCE} --output {{tmp}}/shop --min_rating 2 {split}", log)
    counts = PreparedFolder(log / "shop").read_summary()["counts"]
    assert counts["train"] > counts["validation"] > counts["test"] > 0
    lines = capfd.readouterr().err.splitlines()
    assert "padrec prepare: read: started" in lines
    assert lines[-1] == f"padrec prepare: done: {log / 'shop'}"
    monkeypatch.setenv("PADREC_TEST_RUNS", str(log / "runs"))
    reader = {"folder": str(log / "shop"), "catalog": str(log)}
    main(
        [
            *("fit", f"--config={_TARGET}", "--trainer.max_steps=2"),
            "--data.init_args.reader=padrec.PreparedReader",
            *(f"--data.init_args.reader.init_args.{name}={value}" for name, value in reader.items()),
        ]
    )
    assert (log / "runs" / "target" / "checkpoints" / "last.ckpt").exists()


def test_settings_can_come_from_a_file_and_the_environment(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGS", str(log))
    (log / "prepare.yaml").write_text(
        "source:\n"
        "  class_path: padrec.TableLog\n"
        "  init_args: {interactions: ['${oc.env:LOGS}/log.csv']}\n"
        "split: {class_path: padrec.LeaveLastOut, init_args: {count: 2}}\n"
        "output: ${oc.env:LOGS}/shop\n"
    )
    prepare("--config {tmp}/prepare.yaml --user_core 6", log)
    summary = PreparedFolder(log / "shop").read_summary()
    assert (summary["user_core"], summary["split"]) == (6, {"class": "LeaveLastOut", "count": 2})


def test_the_help_of_the_program_names_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, text in [(["--help"], "padrec prepare --help"), (["prepare", "--help"], "--user_core")]:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code in (0, None)
        assert text in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--output {tmp}/out", "source"),
        (_SOURCE, "output"),
        (f"{_SOURCE} --output {{tmp}}/out --nonsense 1", "nonsense"),
        (f"{_SOURCE} --source.nonsense 1 --output {{tmp}}/out", "nonsense"),
        ("--source padrec.Nonsense --output {tmp}/out", "padrec.Nonsense"),
        (f"{_SOURCE} --output {{tmp}}/out --user_core some", "user_core"),
        (f"{_SOURCE} --output {{tmp}}/out --user_core 2", "user_core is 2, expected at least 3"),
        (f"{_SOURCE} --output {{tmp}}/out --split padrec.LeaveLastOut --split.count 0", "count is 0"),
        (f"{_SOURCE} --source.user who --output {{tmp}}/out", "log.csv: no column 'who' among user, item"),
        ("--source padrec.AmazonReviews2023 --source.reviews {tmp}/absent --output {tmp}/out", "absent: no such file"),
        ("--source padrec.AmazonReviews2014 --source.reviews {tmp}/log.csv --output {tmp}/out", "log.csv, line 1: no"),
        (f"{_SOURCE} --output {{tmp}}", "no prepared.json, expected a folder written by `padrec prepare`"),
        ("--config {tmp}/absent.yaml", "absent.yaml"),
        (f"{_SOURCE} --output '${{{{oc.env:NAME'", "output: missing BRACE_CLOSE"),
    ],
)
def test_wrong_input_gets_one_message(
    arguments: str, message: str, log: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        prepare(arguments, log)
    assert caught.value.code == 2
    output = capfd.readouterr().err
    assert "Traceback" not in output
    assert output.count("error: ") == 1
    assert message in output[output.index("padrec: error: ") :]
    assert not (log / "out").exists()
