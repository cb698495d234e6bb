"""Every stage with a target that starts from a pretrained language model, through the program itself."""

import json
import shlex
from pathlib import Path

import pytest

from padrec.cli import main
from padrec.targets import TargetRecommender
from tests.tiny_language_model import save_tiny_language_model
from tests.tiny_training import logged

_CONF = Path(__file__).parent / "conf"
_WEIGHTS = "--model.init_args.initial_weights"
_TRAINING = {
    "all-weights": "",
    "adapters": f"{_WEIGHTS}.init_args.lora.r=4 {_WEIGHTS}.init_args.lora.lora_dropout=0.1",
}


def run(stage: str, config: str, arguments: str = "") -> None:
    """`padrec STAGE --config tests/conf/CONFIG.yaml --config tests/conf/language_model.yaml ARGUMENTS`."""
    configs = (f"--config={_CONF / name}.yaml" for name in (config, "language_model"))
    main([stage, *configs, *shlex.split(arguments)])


def training(kind: str) -> str:
    """Arguments that make the target of target.yaml start from the language model."""
    start = f"{_WEIGHTS}=padrec.PretrainedModel {_WEIGHTS}.init_args.path=$LM"
    return f"--model.init_args.backbone=null {start} {_TRAINING[kind]}"


@pytest.fixture(scope="module", params=_TRAINING)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def runs(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the language model, a target that started from it, and a draft."""
    folder = tmp_path_factory.mktemp("runs")
    save_tiny_language_model(folder / "language-model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PADREC_TEST_RUNS", str(folder))
        patch.setenv("PADREC_TEST_LANGUAGE_MODEL", str(folder / "language-model"))
        run("fit", "target", training(kind).replace("$LM", str(folder / "language-model")))
        run("fit", "draft", "--trainer.max_epochs=1 --trainer.check_val_every_n_epoch=1")
    return folder


@pytest.fixture(autouse=True)
def environment(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the configs find the trained stages."""
    monkeypatch.setenv("PADREC_TEST_RUNS", str(runs))
    monkeypatch.setenv("PADREC_TEST_LANGUAGE_MODEL", str(runs / "language-model"))


def test_target_and_draft_are_trained_and_validated(runs: Path) -> None:
    losses = logged(runs / "target", "train/loss")
    assert losses[-1] < losses[0]
    assert len(logged(runs / "target", "val/ndcg@10")) == 4
    assert logged(runs / "padrec", "val/acceptance_length")[0] >= 1


def test_validation_of_a_checkpoint_gives_what_the_fit_has_logged(kind: str, runs: Path) -> None:
    last = runs / "target" / "checkpoints" / "last.ckpt"
    arguments = f"{training(kind)} --ckpt_path={last} --trainer.logger.init_args.name=validated"
    run("validate", "target", arguments.replace("$LM", str(runs / "language-model")))
    assert logged(runs / "validated", "val/ndcg@10") == logged(runs / "target", "val/ndcg@10")[-1:]


def test_all_arms_write_the_same_lists(runs: Path) -> None:
    arms = (
        "{autoregressive: {class_path: padrec.AutoregressiveDecoder}, "
        "padrec: {class_path: padrec.SpeculativeDecoder, init_args: {draft: {class_path: padrec.FeatureDraft, "
        f"init_args: {{checkpoint: {runs}/padrec/checkpoints/last.ckpt}}}}}}}}, "
        "transformers: {class_path: padrec.TransformersDecoder}}"
    )
    run("test", "evaluate", f"--model.init_args.arms='{arms}'")
    report = json.loads((runs / "evaluate" / "report.json").read_text())
    assert {name: arm["identical_lists"] for name, arm in report["arms"].items()} == {
        "autoregressive": 1.0,
        "padrec": 1.0,
        "transformers": 1.0,
    }
    assert report["arms"]["padrec"]["acceptance_length"] > 1
    assert all(arm["valid_items"] == arm["distinct_items"] == 1.0 for arm in report["arms"].values())


def test_predictions_are_items_of_the_catalog(kind: str, runs: Path) -> None:
    writer = f"--trainer.callbacks+=padrec.RecommendationWriter --trainer.callbacks.path={runs}/lists.jsonl"
    last = f"--ckpt_path={runs}/target/checkpoints/last.ckpt"
    run("predict", "target", f"{training(kind)} {writer} {last}".replace("$LM", str(runs / "language-model")))
    rows = [json.loads(line) for line in (runs / "lists.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    assert all(len(set(row["items"])) == 4 and None not in row["items"] for row in rows)


def test_a_resumed_fit_ends_as_an_uninterrupted_one(kind: str, runs: Path) -> None:
    begin = training(kind).replace("$LM", str(runs / "language-model"))
    steps = "--trainer.callbacks.init_args.filename={step} --trainer.callbacks.init_args.every_n_train_steps=1"
    begin += f" --trainer.limit_val_batches=0 {steps} --trainer.callbacks.init_args.save_top_k=-1"
    run("fit", "target", f"{begin} --trainer.logger.init_args.name=whole")
    checkpoints = {name: runs / name / "checkpoints" for name in ("whole", "resumed")}
    middle = checkpoints["whole"] / "step=5.ckpt"  # in the middle of the second epoch
    run("fit", "target", f"{begin} --trainer.logger.init_args.name=resumed --ckpt_path={middle}")
    whole, resumed = (TargetRecommender.load(folder / "step=12.ckpt") for folder in checkpoints.values())
    assert resumed.fingerprint() == whole.fingerprint()
    assert resumed.fingerprint() != TargetRecommender.load(middle).fingerprint()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (f"{_WEIGHTS}.init_args.lora.rank=3", "lora: unknown setting rank, expected some of"),
        ("--model.init_args.backbone.hidden_size=8", "hidden_size is 16, but backbone asks for 8: leave backbone out"),
        (f"{_WEIGHTS}.init_args.path=./absent", "absent: no such folder, expected a folder or the hub name"),
        ("--data.init_args.prompt.init_args.text=Buy!", "prompt text 'Buy!': no {history}, expected it once"),
    ],
)
def test_wrong_input_ends_with_one_message(
    argument: str, message: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = training("all-weights").replace("$LM", str(runs / "language-model"))
    with pytest.raises(SystemExit) as caught:
        run("fit", "target", f"{start} {argument} --trainer.logger=false")
    assert caught.value.code == 2
    *_, last = capsys.readouterr().err.strip().splitlines()
    assert last.startswith("padrec: error: ")
    assert message in last
