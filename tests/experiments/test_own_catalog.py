"""The tutorial's commands, as its page gives them, on a smaller sample of a raw log."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.own_catalog import sample
from padrec import Catalog
from padrec.cli import main
from padrec.data.preparation.prepared_folder import PreparedFolder
from tests.quantization.tiny_encoder import save_tiny_encoder

_REPOSITORY = Path(__file__).parents[2]
_PAGE = _REPOSITORY / "docs" / "tutorials" / "your-own-catalog.md"
_COMMAND = re.compile(r"^padrec .*experiments/own_catalog/.*$", re.MULTILINE)
_SMALL = {  # what makes a command small enough for a test
    "target.yaml": "--trainer.max_epochs=2 --trainer.check_val_every_n_epoch=2 "
    "--model.init_args.backbone.num_hidden_layers=2 --data.init_args.max_users=4",
    "draft.yaml": "--trainer.max_epochs=1 --trainer.check_val_every_n_epoch=1 --data.init_args.max_users=4",
    "evaluate.yaml": "--data.init_args.max_users=4",
}
_QUIET = "--trainer.enable_progress_bar=false --trainer.enable_model_summary=false"
_RUNS = Path("runs/own_catalog")


def commands() -> list[str]:
    """All commands of the page in their order."""
    return _COMMAND.findall(_PAGE.read_text(encoding="utf-8"))


def run(command: str, extra: str = "") -> None:
    """A command of the page, in the current folder, with the configs of the repository."""
    program, *arguments = shlex.split(command)
    assert program == "padrec"
    small = " ".join(flags for config, flags in _SMALL.items() if f"/{config}" in command)
    quiet = "" if arguments[0] in ("prepare", "pool", "report") else _QUIET
    arguments = [str(_REPOSITORY / part) if part.startswith("experiments/") else part for part in arguments]
    main([*arguments, *shlex.split(f"{small} {quiet} {extra}")])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the six commands have run."""
    folder = tmp_path_factory.mktemp("shop")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        sample.main(_RUNS / "raw", n_users=150, n_items=80)
        for command in commands()[:6]:
            run(command)
    return folder


@pytest.fixture(autouse=True)
def in_the_shop(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def recommend(users: list[dict[str, Any]], flags: str = "") -> list[dict[str, Any]]:
    """The lists of the tutorial's last command for other users."""
    asked, answered = Path("asked.jsonl"), Path("answered.jsonl")
    asked.write_text("".join(json.dumps(row) + "\n" for row in users))
    answered.unlink(missing_ok=True)
    files = f"--data.init_args.predict_prompts={asked} --trainer.callbacks.path={answered}"
    run(commands()[5], f"{files} {flags}")
    return rows(answered)


def items() -> list[str]:
    return list(Catalog.load(_RUNS / "catalog").keys)


def test_six_commands_lead_from_a_raw_log_to_lists_for_new_users() -> None:
    users, lists = rows(_RUNS / "raw" / "new_users.jsonl"), rows(_RUNS / "recommendations.jsonl")
    assert [row["user"] for row in lists] == [row["user"] for row in users] == [f"new-{user}" for user in range(5)]
    known = set(items())
    for row in lists:
        assert len(set(row["items"])) == len(row["titles"]) == 10
        assert set(row["items"]) <= known
        assert all(str(item)[1:].lstrip("0") in title for item, title in zip(row["items"], row["titles"], strict=True))
    report = json.loads((_RUNS / "evaluate" / "report.json").read_text())
    assert report["arms"]["padrec"]["identical_lists"] == 1.0
    assert not Path("config.yaml").exists()


def test_a_draft_without_training_draws_on_lists_of_other_users(capsys: pytest.CaptureFixture[str]) -> None:
    lists, pool, evaluate = commands()[6:-3]
    run(lists, "--data.init_args.max_users=150")
    run(pool)
    run(evaluate)
    arms = json.loads((_RUNS / "retrieval" / "report.json").read_text())["arms"]
    assert all(arm["identical_lists"] == 1.0 for arm in arms.values())
    assert "retrieval" in capsys.readouterr().out


def test_a_history_longer_than_the_limit_keeps_its_end() -> None:
    history = items()[:25]
    long, short = recommend([{"user": "long", "history": history}, {"user": "short", "history": history[-10:]}])
    assert long["history"] == short["history"] == history[-10:]
    assert long["items"] == short["items"]


def test_items_that_the_preparation_left_out_are_refused_or_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    counts = PreparedFolder(_RUNS / "prepared").read_summary()["counts"]
    assert counts["items"] < 95  # of 80, and 15 that only one user has reviewed
    first, second = items()[:2]
    users: list[dict[str, Any]] = [
        {"user": "some", "history": [first, "R00000", second]},
        {"user": "none", "history": ["R00000"]},
    ]
    with pytest.raises(SystemExit) as end:
        recommend(users)
    assert end.value.code == 2
    message = capfd.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("padrec: error: asked.jsonl, line 1: \"history\" of user 'some': item 'R00000' is not")
    assert message.endswith("unknown_items: drop leaves others out")
    (row,) = recommend(users, "--data.init_args.unknown_items=drop")
    assert (row["user"], row["history"]) == ("some", [first, second])


def test_later_items_can_be_recommended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of the page: IDs from texts, IDs of later items, lists in which they occur."""
    monkeypatch.setenv("PADREC_ENCODER", str(save_tiny_encoder(tmp_path / "encoder")))
    later = json.loads((_RUNS / "raw" / "later.item.json").read_text())
    known = items()
    for name in ("raw", "prepared"):
        shutil.copytree(_RUNS / name, tmp_path / _RUNS / name)
    monkeypatch.chdir(tmp_path)
    (_, _, target, draft, *_), (by_texts, later_ids, with_later) = commands()[:6], commands()[-3:]
    for command in (by_texts, target, draft, later_ids):
        run(command)
    catalog = Catalog.load(_RUNS / "later_catalog")
    assert catalog.keys[len(known) :] == tuple(later)
    assert torch.equal(catalog.codes[: len(known)], Catalog.load(_RUNS / "catalog").codes)
    assert catalog.n_leaves == catalog.n_items
    Path("asked.jsonl").write_text(json.dumps({"user": "new", "history": list(later)}) + "\n")
    run(with_later, "--data.init_args.predict_prompts=asked.jsonl")
    (row,) = rows(_RUNS / "later_recommendations.jsonl")
    assert row["history"] == list(later)
