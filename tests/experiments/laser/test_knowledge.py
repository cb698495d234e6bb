"""The commands of the knowledge experiment, with a language model made on the spot."""

import json
from pathlib import Path

import pytest

from experiments.laser.replay import main as replay_main
from padrec.cli import main
from tests.data.readers.test_minionerec import write_folder
from tests.tiny_language_model import save_tiny_language_model

_CONFIGS = Path(__file__).parents[3] / "experiments" / "laser"
_SMALL = ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--model.init_args.max_tokens=8"]


def run(command: str, kind: str, overlays: str, *arguments: str) -> None:
    """`padrec COMMAND` as knowledge.sh calls it."""
    shared = ["--config", str(_CONFIGS / "knowledge.yaml"), "--data", str(_CONFIGS / f"knowledge_{kind}_data.yaml")]
    more = [f"--config={_CONFIGS / f'knowledge_{name}.yaml'}" for name in overlays.split()]
    main([command, *shared, *more, *_SMALL, *arguments])


@pytest.fixture(scope="module", autouse=True)
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Office Products of eight items, and a language model; the environment names them."""
    folder = tmp_path_factory.mktemp("knowledge")
    office = folder / "data" / "office"
    office.mkdir(parents=True)
    write_folder(office)
    items = {str(number): {"title": f"Pen {number}", "brand": "Acme", "description": "Ink."} for number in range(8)}
    for name in ("Office_Products", "Toy"):
        (office / f"{name}.item.json").write_text(json.dumps(items))
    save_tiny_language_model(folder / "language-model", max_position_embeddings=4096)
    return folder


@pytest.fixture(autouse=True)
def environment(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADREC_DATA", str(runs / "data"))
    monkeypatch.setenv("PADREC_LANGUAGE_MODEL", str(runs / "language-model"))
    monkeypatch.setenv("PADREC_KNOWLEDGE_RUNS", str(runs))
    monkeypatch.setenv("PADREC_KNOWLEDGE_POOLS", str(runs))
    monkeypatch.setenv("PADREC_KNOWLEDGE_POOL", str(runs / "groups.pool"))


def write(runs: Path, kind: str, name: str, overlays: str, half: str) -> Path:
    path = runs / f"{kind}-{name}.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PADREC_KNOWLEDGE_TEXTS", str(path))
        run("predict", kind, overlays, f"--data.init_args.half={half}", f"--trainer.logger.init_args.name={path.stem}")
    return path


def pool(kind: str, texts: Path, path: Path, groups: int) -> None:
    data = ["--data", str(_CONFIGS / f"knowledge_{kind}_data.yaml"), "--data.init_args.half=second"]
    embeddings = f"--embeddings={_CONFIGS / f'knowledge_{kind}_groups.yaml'}"
    main(["text-pool", *data, embeddings, f"--texts=[{texts}]", f"--path={path}", f"--n_groups={groups}"])


def test_texts_fill_pools_from_which_arms_draw(runs: Path) -> None:
    exact = write(runs, "items", "exact", "write", "first")
    pool("items", exact, runs / "global.pool", 1)
    pool("items", exact, runs / "groups.pool", 2)
    run("test", "items", "evaluate", "--data.init_args.max_prompts=2", "--trainer.logger.init_args.name=evaluate")
    report = json.loads((runs / "evaluate" / "report.json").read_text())
    assert report["users"] == 2
    for name, arm in report["arms"].items():
        assert arm["lossless"] == name.endswith(("exact", "autoregressive"))
        assert not arm["lossless"] or arm["identical_texts"] == 1
    others = write(runs, "items", "others", "write", "second")
    pools = f"{{global: {runs / 'global.pool'}, groups: {runs / 'groups.pool'}}}"
    data = ["--data", str(_CONFIGS / "knowledge_items_data.yaml"), "--data.init_args.half=second"]
    replay = [*data, "--data.init_args.max_prompts=2", f"--texts={others}", f"--pools={pools}"]
    replay_main([*replay, f"--output={runs / 'replay'}"])
    found = json.loads((runs / "replay" / "report.json").read_text())["pools"]
    for name, replayed in found.items():
        assert replayed["acceptance_length"] == report["arms"][f"{name}-exact"]["acceptance_length"]
    assert found["global"]["ratio"] == 1
    with pytest.raises(SystemExit, match="no text of an evaluated prompt, expected some"):
        replay_main([*data, f"--texts={exact}", f"--pools={pools}", f"--output={runs / 'none'}"])
    for rule in ("relaxed", "bounded"):
        assert len(write(runs, "items", rule, f"write {rule}", "second").read_text().splitlines()) == 4


def test_users_have_texts_too(runs: Path) -> None:
    rows = [json.loads(line) for line in write(runs, "users", "exact", "write", "first").read_text().splitlines()]
    assert {row["key"] for row in rows} < {"a", "b", "c"}


@pytest.mark.parametrize("overlays", ["sizes", "transformers", "old", "evaluate small"])
def test_further_comparisons_are_as_the_program_takes_them(overlays: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("test", "items", overlays, "--print_config")
    assert not caught.value.code
    assert "autoregressive" in capsys.readouterr().out
