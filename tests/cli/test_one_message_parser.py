"""What a wrong config or argument gets to read: one line with the place, and the name that was meant."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from padrec.cli import main

_TARGET = Path(__file__).parents[1] / "conf" / "target.yaml"
_BEAMS = "--model.init_args.decoder=padrec.BeamDecoder"


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADREC_TEST_RUNS", str(tmp_path))


def message(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(["fit", f"--config={_TARGET}", *arguments])
    assert end.value.code == 2
    return capsys.readouterr().err.removeprefix("padrec: error: ").removesuffix("\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data=nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--model.init_args.backbone=3"], "model.init_args.backbone: found 3, expected dict or null"),
        (["--modle=3"], "unrecognized arguments: --modle=3; did you mean 'model'?"),
        (
            ["--model.init_args.learning_rat=1"],
            "model: Option 'learning_rat' is not accepted; did you mean 'learning_rate'?",
        ),
        (["--model.init_args.learning_rate=fast"], "model.init_args.learning_rate: found fast, expected float"),
        (
            ["--model=TargetRecomender"],
            "model: no class TargetRecomender; did you mean 'TargetRecommender'?",
        ),
        (
            ["--data.init_args.reader=padrec.LCRec"],
            "data.init_args.reader: no class padrec.LCRec; did you mean 'LCRecReader'?",
        ),
        (
            ["--data.init_args.short_users=keep"],
            "data.init_args.short_users: found keep, expected Literal['error', 'drop']",
        ),
        (
            [_BEAMS, "--model.init_args.decoder.init_args.beam_widht=3"],
            "model.init_args.decoder: Option 'beam_widht' is not accepted; did you mean 'beam_width'?",
        ),
        (
            [_BEAMS, "--model.init_args.decoder.init_args.beam_width=x"],
            "model.init_args.decoder.init_args.beam_width: found x, expected int or null",
        ),
        (
            ["--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStoping"],
            "trainer.callbacks: no class lightning.pytorch.callbacks.EarlyStoping; did you mean 'EarlyStopping'?",
        ),
    ],
)
def test_a_message_is_one_line_with_the_place_and_the_nearest_name(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message(capsys, *arguments) == expected


@pytest.mark.parametrize(
    "content",
    [
        {"model": {"init_args": {"learning_rat": 1}}},
        {"model": {"init_args": {"learning_rate": "fast"}}},
        {"trainer": {"max_epoch": 1}},
    ],
)
def test_of_several_configs_the_wrong_one_is_named(
    content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, config in {"wrong": content, "right": {"trainer": {"max_epochs": 1}}}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
    overlays = [f"--config={tmp_path / name}.yaml" for name in ("right", "wrong", "right")]
    assert message(capsys, *overlays).startswith(f"{tmp_path / 'wrong.yaml'}: ")


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_a_value_may_stand_for_another_one_of_its_file_in_every_command(
    stage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = {
        "model": {"init_args": {"warmup_steps": 3}},
        "trainer": {"max_epochs": "${model.init_args.warmup_steps}"},
    }
    (tmp_path / "overlay.yaml").write_text(yaml.safe_dump(overlay))
    with pytest.raises(SystemExit) as end:
        main([stage, f"--config={_TARGET}", f"--config={tmp_path / 'overlay.yaml'}", "--print_config"])
    assert end.value.code in (0, None)
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["max_epochs"] == 3
