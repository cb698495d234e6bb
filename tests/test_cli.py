"""The program itself: every stage on tiny data, and what wrong input gets to read."""

import json
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer

import padrec
from padrec.catalog import SemanticIDVocabulary
from padrec.cli import main
from padrec.drafts import PADRecDraft
from padrec.targets import TargetRecommender
from tests.data.toy_data import INDEX, write_lcrec
from tests.tiny_training import logged, tiny_backbone

_CONF = Path(__file__).parent / "conf"
_EXPERIMENTS = Path(__file__).parents[1] / "experiments"
_HASS = "--model.init_args.position_aware=null"
_FLAVOURS = {
    "padrec": "",
    "hass": _HASS,
    "eagle": f"{_HASS} --model.init_args.unrolled_steps=1 --model.init_args.feature_noise=0.1",
}


def run(stage: str, config: str, arguments: str = "") -> None:
    """`padrec STAGE --config tests/conf/CONFIG.yaml ARGUMENTS`."""
    main([stage, "--config", str(_CONF / f"{config}.yaml"), *shlex.split(arguments)])


def named(name: str) -> str:
    """Arguments that make the logger's folder, in which checkpoints lie too."""
    return f"--trainer.logger.init_args.name={name}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a trained target, three drafts for it, and another target."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PADREC_TEST_RUNS", str(folder))
        run("fit", "target")
        run("fit", "target", f"{named('other')} --seed_everything=1 --trainer.max_steps=1")
        for name, flags in _FLAVOURS.items():
            run("fit", "draft", f"{named(name)} {flags}")
    return folder


@pytest.fixture(autouse=True)
def environment(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the configs find the trained stages."""
    monkeypatch.setenv("PADREC_TEST_RUNS", str(runs))


def checkpoint(runs: Path, stage: str) -> Path:
    return runs / stage / "checkpoints" / "last.ckpt"


def test_the_program_has_one_name_which_no_other_package_installs() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"padrec": "padrec.cli:main"}


def test_the_program_runs_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["padrec", "--version"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("padrec", run_name="__main__")
    assert (end.value.code, capsys.readouterr().out) == (0, f"padrec {padrec.__version__}\n")


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert (end.value.code, capsys.readouterr().out) == (0, f"padrec {padrec.__version__}\n")


def test_training_a_target_logs_losses_and_ranking(runs: Path) -> None:
    losses = logged(runs / "target", "train/loss")
    assert len(losses) == 12
    assert losses[-1] < losses[0]
    for name in ("val/ndcg@5", "val/ndcg@10", "val/recall@5", "val/recall@10"):
        assert len(logged(runs / "target", name)) == 4


def test_a_fit_ends_with_its_metrics_and_shows_nothing_of_others(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    run("fit", "target", f"{named('printing')} --trainer.max_steps=1 --trainer.val_check_interval=1")
    *_, last = capsys.readouterr().out.splitlines()
    assert [part.split()[0] for part in last.split(", ")][:2] == ["train/loss", "val/ndcg@10"]
    assert not [message for message in caplog.messages if "litlogger" in message or "litmodels" in message]
    assert not [warning for warning in recwarn if "args parameter" in str(warning.message)]


@pytest.mark.parametrize("name", _FLAVOURS)
def test_training_a_draft_logs_losses_and_acceptance(name: str, runs: Path) -> None:
    assert len(logged(runs / name, "train/loss")) == 6
    assert len(logged(runs / name, "val/acceptance_length")) == 2
    assert min(logged(runs / name, "val/acceptance_length")) >= 1
    settings = torch.load(checkpoint(runs, name), weights_only=True)["settings"]
    assert settings["n_steps"] == (1 if name == "eagle" else 3)
    assert (settings["position_aware"] is not None) == (name == "padrec")


@pytest.mark.parametrize(("name", "kind"), [("target", TargetRecommender), ("padrec", PADRecDraft)])
def test_callbacks_may_monitor_what_a_fit_logs(
    name: str, kind: type[TargetRecommender] | type[PADRecDraft], runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[LightningModule] = []
    monkeypatch.setattr(Trainer, "fit", lambda self, model, **_: models.append(model))
    run("fit", "target" if name == "target" else "draft", "--trainer.logger=false")
    (model,) = models
    assert isinstance(model, kind)
    header = (runs / name / "metrics.csv").read_text().splitlines()[0]
    assert model.metric_names() == set(header.split(",")) - {"epoch", "step"}


def test_a_fit_that_ends_before_its_monitored_metric_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    monitor = "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint --trainer.callbacks.init_args.monitor"
    with pytest.raises(SystemExit) as end:
        run("fit", "target", f"{named('short')} {monitor}=val/ndcg@10 --trainer.max_steps=1")
    assert end.value.code == 2
    assert "ModelCheckpoint saved nothing: 'val/ndcg@10', which it monitors" in capfd.readouterr().err


@pytest.mark.parametrize(("stage", "config"), [("fit", "target"), ("fit", "draft"), ("test", "evaluate")])
def test_the_data_hand_vocabulary_catalog_and_list_length_to_the_model(
    stage: str, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []

    def record(self: Trainer, model: object, datamodule: object = None, ckpt_path: str | None = None) -> None:
        calls.append({"model": model, "data": datamodule})

    monkeypatch.setattr(Trainer, stage, record)
    run(stage, config, "--data.init_args.list_length=3 --trainer.logger=false")
    (call,) = calls
    # The evaluator keeps them to itself.
    hidden = "_" if config == "evaluate" else ""
    assert getattr(call["model"], f"{hidden}vocabulary") is call["data"].vocabulary
    assert getattr(call["model"], f"{hidden}catalog") is call["data"].catalog
    assert getattr(call["model"], f"{hidden}list_length") == 3


@pytest.mark.parametrize("name", ["target", *_FLAVOURS])
def test_validation_of_a_checkpoint_gives_what_the_fit_has_logged(name: str, runs: Path) -> None:
    config = "target" if name == "target" else "draft"
    flags = f"{named(f'validated-{name}')} {_FLAVOURS.get(name, '')} --ckpt_path={checkpoint(runs, name)}"
    run("validate", config, flags)
    metric = "val/ndcg@10" if name == "target" else "val/acceptance_length"
    assert logged(runs / f"validated-{name}", metric) == logged(runs / name, metric)[-1:]


def test_lists_of_the_target_can_be_predicted_and_trained_on(runs: Path, tmp_path: Path) -> None:
    lists = tmp_path / "lists.jsonl"
    writer = f"--trainer.callbacks+=padrec.RecommendationWriter --trainer.callbacks.init_args.path={lists}"
    cut = "--data.init_args.predict_split=train --data.init_args.predict_cuts=2"
    run("predict", "target", f"{named('predicted')} {writer} {cut} --ckpt_path={checkpoint(runs, 'target')}")
    rows = [json.loads(line) for line in lists.read_text().splitlines()]
    assert len(rows) == 24
    assert {len(row["items"]) for row in rows} == {4}
    assert all(item.startswith("item-") for row in rows for item in row["items"])
    both = f"--data.init_args.training_rows+=padrec.LoggedSequences {_TRAIN_ON_LISTS}[{lists}]"
    run("fit", "draft", f"{named('on-lists')} {both}")
    assert len(logged(runs / "on-lists", "train/loss")) > len(logged(runs / "padrec", "train/loss"))


@pytest.mark.parametrize(
    ("stage", "hook"),
    [("fit", "training_step"), ("validate", "validation_step"), ("test", "test_step"), ("predict", "predict_step")],
)
def test_a_command_that_is_told_to_end_does_so_at_once(
    stage: str, hook: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def terminate(*_: object) -> None:
        calls.append(stage)
        os.kill(os.getpid(), signal.SIGTERM)
        calls.append("went on")

    monkeypatch.setattr(TargetRecommender, hook, terminate)
    lists = tmp_path / "lists.jsonl"
    writer = f"--trainer.callbacks+=padrec.RecommendationWriter --trainer.callbacks.init_args.path={lists}"
    trained = "" if stage == "fit" else f"--ckpt_path={checkpoint(runs, 'target')}"
    with pytest.raises(SystemExit) as end:
        run(stage, "target", f"{named(f'terminated-{stage}')} {trained} {writer if stage == 'predict' else ''}")
    assert end.value.code == 143
    assert calls == [stage]
    assert not lists.exists()


def test_the_end_of_one_process_ends_the_other(tmp_path: Path) -> None:
    """A fit on two processes, of which the second alone gets a SIGTERM in its second step."""
    program = (
        "import os, signal, sys\n"
        "from padrec.cli import main\n"
        "from padrec.targets import TargetRecommender\n"
        "original = TargetRecommender.training_step\n"
        "def step(self, batch, batch_idx):\n"
        "    if batch_idx == 1 and self.global_rank == 1:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return original(self, batch, batch_idx)\n"
        "TargetRecommender.training_step = step\n"
        "main()\n"
    )
    (tmp_path / "program.py").write_text(program)
    devices = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.max_epochs=1000"]
    command = [sys.executable, str(tmp_path / "program.py"), "fit", f"--config={_CONF / 'target.yaml'}", *devices]
    environment = {**os.environ, "PADREC_TEST_RUNS": str(tmp_path), "PYTHONPATH": str(_CONF.parents[1])}
    ended = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)
    assert ended.returncode != 0
    assert not (tmp_path / "target" / "checkpoints" / "last.ckpt").exists()


def test_without_a_logger_no_config_is_left_in_the_folder(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("mine: true\n")
    monkeypatch.setenv("PADREC_TEST_RUNS", str(tmp_path))
    writer = "--trainer.callbacks+=padrec.RecommendationWriter --trainer.callbacks.init_args.path=lists.jsonl"
    run("predict", "target", f"{writer} --trainer.logger=false --ckpt_path={checkpoint(runs, 'target')}")
    assert (tmp_path / "config.yaml").read_text() == "mine: true\n"


def test_a_run_replaces_neither_checkpoints_nor_configs(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = runs / "repeated"
    first = f"{named('repeated')} --trainer.max_epochs=1"
    run("fit", "target", first)
    before = {path: path.read_bytes() for path in (folder / "config.yaml", checkpoint(runs, "repeated"))}
    with pytest.raises(SystemExit) as end:
        run("fit", "target", first)
    assert end.value.code == 2
    assert f"{folder}/checkpoints: checkpoints of another fit" in capfd.readouterr().err
    assert {path: path.read_bytes() for path in before} == before
    run("validate", "target", f"{first} --ckpt_path={checkpoint(runs, 'repeated')}")
    run("fit", "target", f"{named('repeated')} --trainer.max_epochs=2 --ckpt_path={checkpoint(runs, 'repeated')}")
    assert (folder / "config.yaml").read_bytes() == before[folder / "config.yaml"]
    assert [yaml.safe_load((folder / f"config-{n}.yaml").read_text())["ckpt_path"] for n in (2, 3)] == [
        str(checkpoint(runs, "repeated"))
    ] * 2
    # The first config alone repeats the first fit.
    main(["fit", f"--config={folder / 'config.yaml'}", named("again")])
    again, whole = (torch.load(checkpoint(runs, name), weights_only=True) for name in ("again", "repeated"))
    assert (again["epoch"], whole["epoch"]) == (0, 1)


def test_evaluation_compares_all_arms(runs: Path) -> None:
    run("test", "evaluate")
    report = json.loads((runs / "evaluate" / "report.json").read_text())
    writing = ["autoregressive", "eagle", "hass", "padrec", "transformers"]
    assert list(report["arms"]) == [*writing, "beam-steps", "beam", "beam-wide"]
    assert (report["users"], report["list_length"], report["constraint"]) == (12, 4, "catalog")
    for name, arm in report["arms"].items():
        assert arm["valid_items"] == arm["distinct_items"] == 1.0
        # A beam search is compared with the first one of its kind; that one, or one alone, with none.
        assert arm["identical_lists"] == (None if name in ("beam-steps", "beam-wide") else 1.0), name
    for name in writing:
        assert report["arms"][name]["ndcg@10"] == report["arms"]["autoregressive"]["ndcg@10"]
    assert report["arms"]["beam"]["ndcg@10"] == report["arms"]["beam-steps"]["ndcg@10"]
    for name in _FLAVOURS:
        assert report["arms"][name]["target_passes"] < report["arms"]["autoregressive"]["target_passes"]


def test_evaluation_compares_with_all_that_transformers_offers(runs: Path, tmp_path: Path) -> None:
    assistant = {"class_path": "padrec.AssistantModel", "init_args": {"checkpoint": str(checkpoint(runs, "assistant"))}}
    decoder = "padrec.TransformersDecoder"
    arms = {
        "autoregressive": {"class_path": "padrec.AutoregressiveDecoder"},
        "transformers": {"class_path": decoder},
        "lookup": {"class_path": decoder, "init_args": {"prompt_lookup_tokens": 10}},
        "assisted": {"class_path": decoder, "init_args": {"assistant": assistant}},
    }
    overlay = tmp_path / "arms.yaml"
    compared = {"arms": arms, "further_references": ["transformers"]}
    overlay.write_text(yaml.safe_dump({"model": {"init_args": compared}}, sort_keys=False))
    run("fit", "target", f"{named('assistant')} --model.init_args.backbone.num_hidden_layers=1")
    run("test", "evaluate", f"{named('today')} --config={overlay} --data.init_args.eval_batch_size=1")
    report = json.loads((runs / "today" / "report.json").read_text())
    assert list(report["arms"]) == list(arms)
    for name, arm in report["arms"].items():
        assert arm["identical_lists"] == 1.0, name
        assert arm["recording_seconds"] >= 0
        low, high = arm["speedup_over_transformers_ci95"]
        assert low <= arm["speedup_over_transformers"] <= high
    assert report["arms"]["transformers"]["speedup_over_transformers"] == 1.0
    assert report["arms"]["assisted"]["target_passes"] < report["arms"]["transformers"]["target_passes"]
    assert report["arms"]["assisted"]["draft_passes"] > 0


def test_every_stage_works_in_half_precision(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADREC_TEST_RUNS", str(tmp_path))
    mixed = "--trainer.precision=bf16-mixed"
    run("fit", "target", mixed)
    for name, flags in _FLAVOURS.items():
        run("fit", "draft", f"{mixed} {named(name)} {flags}")
        assert all(loss < 10 for loss in logged(tmp_path / name, "train/loss"))
    run("test", "evaluate", "--trainer.precision=bf16-true")
    report = json.loads((tmp_path / "evaluate" / "report.json").read_text())
    assert report["precision"] == "bf16-true"
    assert all(arm["valid_items"] == arm["distinct_items"] == 1.0 for arm in report["arms"].values())


def write_wrong_inputs(folder: Path, runs: Path) -> None:
    """Everything that the wrong commands name."""
    good = {"u": ["0", "1", "2", "3"]}
    ragged = {**INDEX, "3": ["<a_1>"]}
    for name, index, interactions in (
        ("malformed", '{"0": ["<a_0>",', good),
        ("ragged", ragged, good),
        ("no-id", {key: codes for key, codes in INDEX.items() if key != "2"}, good),
        ("empty-user", INDEX, {**good, "v": []}),
        ("short-user", INDEX, {**good, "v": ["0", "1"]}),
        ("good", INDEX, good),
    ):
        (folder / name).mkdir()
        write_lcrec(folder / name, index, interactions)
    (folder / "no-interactions").mkdir()
    (folder / "no-interactions" / "Toy.index.json").write_text(json.dumps(INDEX))
    (folder / "broken.ckpt").write_bytes(b"no checkpoint")
    (folder / "unknown-item.jsonl").write_text('{"user": "u", "history": ["item-1"], "items": ["item-777"]}\n')
    (folder / "malformed.yaml").write_text("trainer: {max_epochs: 1\n")
    (folder / "list.yaml").write_text("[1, 2]\n")
    for name, value in {
        "open": "${oc.env:NAME",
        "no-variable": "${oc.env:PADREC_NO_SUCH_VARIABLE}",
        "no-key": "${nonsense.key}",
        "no-resolver": "${nonsense:x}",
    }.items():
        (folder / f"{name}.yaml").write_text(f'trainer: {{default_root_dir: "{value}"}}\n')
    for name, draft in {
        "absent-draft": folder / "absent.ckpt",
        "target-as-draft": checkpoint(runs, "target"),
        "no-reference": checkpoint(runs, "padrec"),
    }.items():
        decoder = {"draft": {"class_path": "padrec.FeatureDraft", "init_args": {"checkpoint": str(draft)}}}
        arms: dict[str, Any] = {"fast": {"class_path": "padrec.SpeculativeDecoder", "init_args": decoder}}
        if name != "no-reference":
            arms["autoregressive"] = {"class_path": "padrec.AutoregressiveDecoder"}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"arms": arms}}}))
    other = TargetRecommender(SemanticIDVocabulary([5, 6, 7], separator=False), tiny_backbone())
    other.save_pretrained(folder / "of-others")
    assistant = {"class_path": "padrec.AssistantModel", "init_args": {"checkpoint": str(folder / "of-others")}}
    arms = {
        "autoregressive": {"class_path": "padrec.AutoregressiveDecoder"},
        "assisted": {"class_path": "padrec.TransformersDecoder", "init_args": {"assistant": assistant}},
    }
    (folder / "assistant-of-others.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"arms": arms}}}))


_TRAIN_ON_LISTS = (
    "--data.init_args.training_rows+=padrec.GeneratedLists --data.init_args.training_rows.init_args.paths="
)
_READ = (
    "--data.init_args.list_length=2 --data.init_args.reader=padrec.LCRecReader "
    "--data.init_args.reader.init_args.folder="
)
_TARGET = "{runs}/target/checkpoints/last.ckpt"
_OTHER = "{runs}/other/checkpoints/last.ckpt"
_DRAFT = "{runs}/padrec/checkpoints/last.ckpt"
_FREE = "--data.init_args.separator=false"
# By stage and config: arguments, and what the message says.
WRONG_INPUT = {
    "fit target": {
        "no config": ("--config={tmp}/absent.yaml", ["File does not exist", "absent.yaml"]),
        "malformed config": (
            "--config={tmp}/malformed.yaml",
            ["{tmp}/malformed.yaml: ", "parsing config", "line 2, column 1"],
        ),
        "config that is a list": ("--config={tmp}/list.yaml", ["{tmp}/list.yaml: ", "[1, 2]"]),
        "interpolation without its end": (
            "--config={tmp}/open.yaml",
            ["trainer.default_root_dir: missing BRACE_CLOSE", "expected an interpolation that can be resolved"],
        ),
        "interpolation of no variable": (
            "--config={tmp}/no-variable.yaml",
            ["trainer.default_root_dir: Environment variable 'PADREC_NO_SUCH_VARIABLE' not found, expected"],
        ),
        "interpolation of no key": (
            "--config={tmp}/no-key.yaml",
            ["trainer.default_root_dir: Interpolation key 'nonsense.key' not found, expected"],
        ),
        "interpolation of no kind": (
            "--config={tmp}/no-resolver.yaml",
            ["trainer.default_root_dir: Unsupported interpolation type nonsense, expected"],
        ),
        "unknown model key": ("--model.init_args.nonsense=1", ["'nonsense' is not accepted"]),
        "unknown data key": ("--data.init_args.nonsense=1", ["'nonsense' is not accepted"]),
        "unknown trainer key": ("--trainer.nonsense=1", ["nonsense"]),
        "unknown class": ("--model=padrec.Nonsense", ["padrec.Nonsense"]),
        "unknown backbone": ("--model.init_args.backbone.model_type=nonsense", ["nonsense", "expected"]),
        "unknown backbone key": ("--model.init_args.backbone.nonsense=1", ["llama has no setting nonsense"]),
        "wrong type": ("--model.init_args.learning_rate=fast", ["learning_rate", "fast"]),
        "impossible rate": ("--model.init_args.learning_rate=-1", ["learning_rate is -1.0", "expected more"]),
        "rate that is no number": ("--model.init_args.learning_rate=.nan", ["learning_rate is nan", "finite"]),
        "no data folder": (_READ + "{tmp}/absent", ["{tmp}/absent: no such folder", "PADREC_DATA"]),
        "no data file": (_READ + "{tmp}/no-interactions", ["no *.inter.json, expected *.index.json"]),
        "malformed JSON": (_READ + "{tmp}/malformed", ["Toy.index.json: no valid JSON at line 1"]),
        "ragged IDs": (_READ + "{tmp}/ragged", ["Toy.index.json", "'3'", "expected"]),
        "item without ID": (_READ + "{tmp}/no-id", ["Toy.inter.json: user 'u'", "'2'"]),
        "empty user": (_READ + "{tmp}/empty-user", ["'v'", "expected"]),
        "short user": (_READ + "{tmp}/short-user", ["'v'", "expected"]),
        "code out of range": ("--data.init_args.codebook_sizes=[5,6,2]", ["in slot 2, expected 0 … 1"]),
        "unknown item": (
            _TRAIN_ON_LISTS + "[{tmp}/unknown-item.jsonl]",
            ["unknown-item.jsonl, line 1", "'item-777' is not among the 30 items"],
        ),
        "long list": ("--data.init_args.list_length=28", ["list_length is 28", "at most the 27"]),
        "no such accelerator": ("--trainer.accelerator=tpu", ["trainer (accelerator: tpu, devices: auto"]),
        "no devices": ("--trainer.devices=0", ["trainer (accelerator: cpu, devices: 0"]),
        "devices of a wrong type": ("--trainer.devices=-5", ["devices: -5", "should be an int > 0"]),
        "strategy of a GPU": ("--trainer.strategy=fsdp", ["fsdp", "requires a GPU"]),
        "endless epochs": ("--trainer.max_epochs=-3", ["max_epochs", "-3"]),
        "no finite clipping": ("--trainer.gradient_clip_val=.nan", ["clip_val is nan, expected a finite"]),
        "large seed": ("--seed_everything=4294967296", ["seed_everything is 4294967296, expected 0 … "]),
        "no accumulation": ("--trainer.accumulate_grad_batches=0", ["is 0, expected at least 1"]),
        "no best checkpoint": ("--ckpt_path=best", ["--ckpt_path best: expected a file"]),
        "rare validation": ("--trainer.val_check_interval=99", ["val_check_interval` (99) must be less"]),
        "package of a logger": (
            "--trainer.logger=lightning.pytorch.loggers.CometLogger",
            ["Requirement 'comet-ml", "not met"],
        ),
        "unknown metric": (
            "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping --trainer.callbacks.init_args.monitor=ndcg",
            ["EarlyStopping monitors 'ndcg': this fit logs only train/loss, val/ndcg@10"],
        ),
        "metric of no validation": (
            "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint "
            "--trainer.callbacks.init_args.monitor=val/ndcg@10 --trainer.check_val_every_n_epoch=9",
            ["ModelCheckpoint monitors 'val/ndcg@10': this fit, which never validates, logs only train/loss"],
        ),
        "no checkpoint": ("--ckpt_path={tmp}/absent.ckpt", ["absent.ckpt: no such file"]),
        "checkpoint of an address": ("--ckpt_path=http://a.b/c.ckpt", ["expected a file on this machine"]),
        "draft as target checkpoint": (
            f"--ckpt_path={_DRAFT}",
            ["a checkpoint of padrec.PADRecDraft, expected one of the config's model padrec.TargetRecommender"],
        ),
        "other rate than the checkpoint's": (
            f"--ckpt_path={_TARGET} --model.init_args.learning_rate=0.5",
            ["last.ckpt: learning_rate is 0.5 in the config and 0.01 in the checkpoint", "initial_weights"],
        ),
        "setting that the checkpoint lacks": (
            f"--ckpt_path={_TARGET} --model.init_args.backbone.mlp_bias=true",
            ["backbone.mlp_bias is True in the config and not in the checkpoint"],
        ),
        "checkpoint of another vocabulary": (
            f"--ckpt_path={_TARGET} {_FREE}",
            ["codebook_sizes=[5, 6, 7], separator=True", "codebook_sizes=[5, 6, 7], separator=False"],
        ),
    },
    "fit evaluate": {
        "fit of an evaluation": ("", ["fit of a SpeculativeEvaluator", "expected `padrec test`"]),
    },
    "test draft": {
        "test of a draft": ("", ["test of a PADRecDraft", "expected `padrec fit`, `padrec validate`"]),
    },
    "validate target": {
        "random target": ("", ["validate of a TargetRecommender with random weights", "--ckpt_path"]),
        "broken checkpoint": ("--ckpt_path={tmp}/broken.ckpt", ["broken.ckpt: cannot be read"]),
        "other layers than the checkpoint's": (
            f"--ckpt_path={_TARGET} --model.init_args.backbone.num_hidden_layers=3",
            ["backbone.num_hidden_layers is 3 in the config and 2 in the checkpoint"],
        ),
    },
    "validate draft": {
        "random draft": ("", ["validate of a PADRecDraft with random weights", "--ckpt_path"]),
        "other embeddings than the checkpoint's": (
            f"--ckpt_path={_DRAFT} --model.init_args.position_aware.slots=constant",
            ["position_aware.slots is constant in the config and input in the checkpoint"],
        ),
    },
    "predict target": {
        "no writer": (f"--ckpt_path={_TARGET}", ["expected one such as padrec.RecommendationWriter"]),
    },
    "test evaluate": {
        "target as evaluator checkpoint": (
            f"--ckpt_path={_TARGET}",
            [
                "a checkpoint of padrec.TargetRecommender, expected one of the config's model "
                "padrec.SpeculativeEvaluator"
            ],
        ),
        "evaluation of another vocabulary": (_FREE, ["separator=True", "separator=False"]),
        "draft of another target": (f"--model.init_args.target={_OTHER}", ["{target}", "{other}"]),
        "no draft": ("--config={tmp}/absent-draft.yaml", ["absent.ckpt: no such file", "of a draft"]),
        "assistant of another vocabulary": (
            "--config={tmp}/assistant-of-others.yaml",
            ["the assistant {tmp}/of-others", "separator=False", "separator=True"],
        ),
        "target as draft": ("--config={tmp}/target-as-draft.yaml", ["kind 'target', expected 'draft'"]),
        "no reference arm": ("--config={tmp}/no-reference.yaml", ["'autoregressive'"]),
        "no further reference": ("--model.init_args.further_references=[slow]", ["arm 'slow' among them"]),
    },
    "fit draft": {
        "no target": ("--model.init_args.target={tmp}/absent.ckpt", ["no such file", "of a target"]),
        "draft as target": (f"--model.init_args.target={_DRAFT}", ["kind 'draft', expected 'target'"]),
        "target of another vocabulary": (_FREE, ["separator=True", "separator=False"]),
        "checkpoint of another target": (
            f"--model.init_args.target={_OTHER} --ckpt_path={_DRAFT}",
            ["{target}", "{other}"],
        ),
    },
}


@pytest.mark.parametrize(
    ("command", "case"), [(command, case) for command in WRONG_INPUT for case in WRONG_INPUT[command]]
)
def test_wrong_input_gets_one_message(
    command: str, case: str, runs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_wrong_inputs(tmp_path, runs)
    places = {
        "tmp": tmp_path,
        "runs": runs,
        "target": TargetRecommender.load(checkpoint(runs, "target")).fingerprint(),
        "other": TargetRecommender.load(checkpoint(runs, "other")).fingerprint(),
    }
    stage, config = command.split()
    arguments, fragments = WRONG_INPUT[command][case]
    capfd.readouterr()
    with pytest.raises(SystemExit) as caught:
        run(stage, config, f"{named('wrong')} {arguments.format(**places)}")
    output = capfd.readouterr().err
    assert caught.value.code == 2
    assert "Traceback" not in output
    assert output.count("error: ") == 1
    message = output[output.index("padrec: error: ") :]
    for fragment in fragments:
        assert fragment.format(**places) in message
    assert not list((runs / "wrong").glob("metrics.csv")), "work had begun"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "padrec: error: no command: expected one of prepare, fit, validate, test, predict, report, pool, "),
        (["reprot"], "padrec: error: command 'reprot': expected one of prepare, "),
        (["reprot"], "; did you mean 'report'?"),
    ],
)
def test_all_commands_are_named_where_none_is_known(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def names_a_class(config: dict[str, Any], *keys: str) -> bool:
    """Whether a config says what each of these is, itself or through a file, and does not only change it."""
    return all(isinstance(config.get(key), str) or "class_path" in config.get(key, {}) for key in keys)


def is_data(config: dict[str, Any]) -> bool:
    """Whether a config is a part that says what the data are."""
    return str(config.get("class_path")).endswith("DataModule")


def configs() -> dict[str, list[Path]]:
    """Complete configs on their own, and overlays with every complete config and data of their folder, by name."""
    found = {}
    for folder in sorted(path for path in _EXPERIMENTS.iterdir() if path.is_dir()):
        contents = {path: yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*.yaml"))}
        complete = [path for path, content in contents.items() if names_a_class(content, "model", "data")]
        if not complete and (run := folder / "run.sh").exists():  # a study of another folder's configs
            names = re.findall(r"experiments/(\w+/\w+\.yaml)", run.read_text())
            complete = [_EXPERIMENTS / name for name in names]
        data = [path for path, content in contents.items() if is_data(content)]
        for path, content in contents.items():
            # Others are parts that are included, or for `prepare`, `pool` and the grid of ablations.
            if not content.keys() & {"class_path", "source", "lists", "forms"}:
                found[f"{folder.name}/{path.stem}"] = [path] if path in complete else [*complete, *data, path]
    return found


def parses(*paths: Path) -> bool:
    options = ("--data" if is_data(yaml.safe_load(path.read_text())) else "--config" for path in paths)
    arguments = [f"{option}={path}" for option, path in zip(options, paths, strict=True)]
    with pytest.raises(SystemExit) as caught:
        main(["fit", *arguments, "--print_config"])
    return caught.value.code == 0


@pytest.mark.parametrize("name", configs())
def test_every_experiment_can_be_read(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    *bases, path = configs()[name]
    # An overlay changes some of the stages of its folder.
    assert any(parses(base, path) for base in bases) if bases else parses(path), capfd.readouterr().err


@pytest.mark.parametrize(("command", "key"), [("prepare", "source"), ("pool", "lists")])
def test_every_preparation_can_be_read(command: str, key: str, capfd: pytest.CaptureFixture[str]) -> None:
    for path in _EXPERIMENTS.glob("*/*.yaml"):
        if key in yaml.safe_load(path.read_text()):
            with pytest.raises(SystemExit) as caught:
                main([command, f"--config={path}", "--print_config"])
            assert caught.value.code == 0, capfd.readouterr().err


def test_parts_of_experiments_are_included_or_named_somewhere() -> None:
    for path in _EXPERIMENTS.glob("*/*.yaml"):
        if "class_path" in yaml.safe_load(path.read_text()):
            others = (other for other in path.parent.glob("*.yaml") if other != path)
            assert any(path.name in other.read_text() for other in others), path
