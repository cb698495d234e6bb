"""Commands that decode give on two processes what they give on one."""

import json
import os
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any

import pytest

from padrec.catalog import InputError
from padrec.cli import main
from padrec.decoding import AutoregressiveDecoder
from tests.two_processes import on_two_processes

_CONF = Path(__file__).parent / "conf"
_TWO = ["--trainer.devices=2", "--trainer.strategy=ddp"]
_DRAFT = {"class_path": "padrec.SpeculativeDecoder", "init_args": {"draft": {"class_path": "padrec.CatalogDraft"}}}
_ARMS = {"autoregressive": {"class_path": "padrec.AutoregressiveDecoder"}, "catalog": _DRAFT}
# Of wall-clock time, which no two runs have in common.
_TIMED = ("second", "latency", "speedup")


def decode(rank: int, name: str, folder: Path, arguments: list[str]) -> None:
    """Evaluate and predict; the last of 11 users in batches of 2 leaves the second process nothing but padding."""
    os.environ["PADREC_TEST_RUNS"] = str(folder)
    logger = [f"--trainer.logger.init_args.name={name}"]
    data = ["--data.init_args.max_users=11", "--data.init_args.eval_batch_size=2"]
    writer = ["--trainer.callbacks+=padrec.RecommendationWriter"]
    writer += [f"--trainer.callbacks.init_args.path={folder / name}.jsonl"]
    configs = ["--config", str(_CONF / "evaluate.yaml"), "--model.init_args.arms", json.dumps(_ARMS)]
    main(["test", *configs, *data, *logger, *arguments])
    main(["predict", *configs, *data, *writer, "--trainer.logger=false", *arguments])


def decode_and_fail(rank: int, folder: Path) -> None:
    """Then do it again, with an arm that the second process cannot bind."""

    def refuse(*_: object) -> None:
        raise InputError("a draft that is not there")

    decode(rank, "two", folder, _TWO)
    if rank == 1:
        pytest.MonkeyPatch().setattr(AutoregressiveDecoder, "bind", refuse)
    with (folder / f"{rank}.txt").open("w") as messages, redirect_stderr(messages), suppress(SystemExit):
        decode(rank, "failing", folder, _TWO)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process and what two have written about the same target."""
    folder = tmp_path_factory.mktemp("two_processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PADREC_TEST_RUNS", str(folder))
        main(["fit", "--config", str(_CONF / "target.yaml"), "--trainer.max_steps=1"])
        decode(0, "one", folder, [])
        on_two_processes(decode_and_fail, folder)
    return folder


def untimed(report: Path) -> dict[str, Any]:
    arms = json.loads(report.read_text())["arms"]
    return {
        arm: {name: value for name, value in metrics.items() if not any(word in name for word in _TIMED)}
        for arm, metrics in arms.items()
    }


def test_two_processes_write_the_report_of_one(folder: Path) -> None:
    of_one, of_two = untimed(folder / "one" / "report.json"), untimed(folder / "two" / "report.json")
    assert list(of_two) == list(_ARMS)
    assert of_two == of_one
    assert of_two["catalog"]["identical_lists"] == 1.0


def test_two_processes_write_the_recommendations_of_one(folder: Path) -> None:
    assert (folder / "two.jsonl").read_text() == (folder / "one.jsonl").read_text()
    assert len((folder / "two.jsonl").read_text().splitlines()) == 11


def test_a_process_that_fails_names_itself_and_ends_the_other(folder: Path) -> None:
    first, second = ((folder / f"{rank}.txt").read_text().splitlines()[-1] for rank in range(2))
    assert first == "padrec: error: another process of this run has failed, see its own message"
    assert second == "padrec: error: process 1: a draft that is not there"
    assert not (folder / "failing" / "report.json").exists()
