"""A recommender in one folder: written, read, shared."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard

from padrec import Recommender
from padrec.catalog import InputError
from padrec.cli import main
from padrec.data import SemanticIDDataModule
from padrec.decoding import AutoregressiveDecoder, BatchSizeDecoder
from padrec.recommender_folder import DecoderSettings, RecommenderFolder
from padrec.targets import SavedTarget
from tests.damage import with_a_flipped_bit
from tests.serving.tiny_service import SETTINGS, write_parts
from tests.tiny_training import tiny_data

_HISTORIES = [["item-3", "item-17"], ["item-5"]]
_REPORT = Path(__file__).parents[1] / "docs" / "results" / "quickstart" / "report.json"


@pytest.fixture(scope="module")
def data() -> SemanticIDDataModule:
    return tiny_data(list_marker=True)


@pytest.fixture(scope="module")
def parts(data: SemanticIDDataModule, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    write_parts(data, folder)
    return folder


@pytest.fixture
def shop(parts: Path, tmp_path: Path) -> Path:
    Recommender.load(parts / "target", parts / "draft", SETTINGS, device="cpu").save_pretrained(tmp_path / "shop")
    return tmp_path / "shop"


def test_a_folder_holds_all_of_a_recommender(shop: Path, parts: Path) -> None:
    loaded = Recommender.load(parts / "target", parts / "draft", SETTINGS, device="cpu")
    found = Recommender.from_pretrained(shop, device="cpu")
    assert found.recommend(_HISTORIES, k=5) == loaded.recommend(_HISTORIES, k=5)
    assert RecommenderFolder.open(shop).decoder == SETTINGS
    found.save_pretrained(shop.with_name("again"))
    files = [path.relative_to(shop) for path in shop.rglob("*") if path.is_file() and path.name != "README.md"]
    again = shop.with_name("again")
    assert all((shop / name).read_bytes() == (again / name).read_bytes() for name in files if len(name.parts) > 1)


def test_a_recommender_without_a_draft_is_one_folder_too(parts: Path, tmp_path: Path) -> None:
    Recommender.load(parts / "target", device="cpu").save_pretrained(tmp_path / "plain")
    found = Recommender.from_pretrained(tmp_path / "plain", device="cpu")
    assert isinstance(found.decoders["list"], AutoregressiveDecoder)
    assert "no draft" in (tmp_path / "plain" / "README.md").read_text()


def test_several_users_can_get_a_smaller_tree_and_the_same_lists(parts: Path) -> None:
    shop = Recommender.load(
        parts / "target",
        parts / "draft",
        DecoderSettings(forced_tokens=False, adaptive=True),
        device="cpu",
        dtype=torch.float64,
    )
    decoder = shop.decoders["list"]
    assert isinstance(decoder, BatchSizeDecoder)
    users = shop.users([["item-1"], ["item-2", "item-3"], ["item-4"]])
    for number, name in ((1, "one"), (3, "several")):
        lists, trace = shop.decode(users[:number], 3)
        assert trace.decoder == name
        plain, _ = shop.undrafted().decode(users[:number], 3)
        assert [[item.key for item in row] for row in lists] == [[item.key for item in row] for row in plain]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, r"recommender.json: format version 2 of padrec .*, expected 1: use that release"),
        ({"format_version": None}, "format version None"),
        ({"decoder": {"hight": 3}}, "decoder .*, expected an object with some of"),
        ({"decoder": {"nodes": 1}}, "DecoderSettings: nodes is 1, expected at least 2"),
        ({"decoder": {"nodes": "many"}}, "nodes"),
        ({"decoder": None}, "decoder None, expected an object"),
    ],
)
def test_a_folder_that_cannot_be_read_says_what_to_do(change: dict[str, Any], message: str, shop: Path) -> None:
    file = shop / "recommender.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        Recommender.from_pretrained(shop)


def test_damage_is_found(shop: Path) -> None:
    weights = shop / "draft" / "model.safetensors"
    weights.write_bytes(with_a_flipped_bit(weights.read_bytes()))
    with pytest.raises(InputError, match=r"model.safetensors: not what was written"):
        Recommender.from_pretrained(shop)


def test_other_folders_are_refused(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"no recommender.json, expected a folder of `padrec export`"):
        Recommender.from_pretrained(parts / "target")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="owner/shop: no folder, and no repository that can be read from the hub"):
        Recommender.from_pretrained("owner/shop")
    with pytest.raises(InputError, match="made in memory"):
        Recommender(SavedTarget.read(parts / "target"), device="cpu").save_pretrained(tmp_path / "shop")


def test_the_card_tells_the_evaluation(parts: Path, tmp_path: Path) -> None:
    arguments = {"target": parts / "target", "draft": parts / "draft", "report": _REPORT, "output": tmp_path / "shop"}
    main(["export", *(f"--{name}={value}" for name, value in arguments.items()), "--decoder.nodes=16"])
    assert RecommenderFolder.open(tmp_path / "shop").decoder.nodes == 16
    card = ModelCard.load(tmp_path / "shop" / "README.md")
    arm = json.loads(_REPORT.read_text())["arms"]["padrec"]
    found = {result.metric_type: result.metric_value for result in card.data.eval_results or []}
    assert found["ndcg@10"] == arm["ndcg@10"]
    assert found["acceptance_length"] == arm["acceptance_length"]
    assert found["speedup"] == arm["speedup"]
    assert "40 users of `synthetic`" in card.text
    assert "padrec test --config experiments/quickstart/evaluate.yaml" in card.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--target {parts}/target", "output"),
        ("--target {parts}/absent --output {tmp}/out", "absent"),
        ("--target {parts}/target --draft {parts}/target --output {tmp}/out", "target"),
        ("--target {parts}/target --output {tmp}/out --report {tmp}/absent.json", "absent.json: no such file"),
        ("--target {parts}/target --output {tmp}/out --report {report} --arm best", "expected 'best' among them"),
        ("--target {parts}/target --output {parts}/draft", "draft: there already"),
        ("--target {parts}/target --output {tmp}/out --decoder.nodes 1", "nodes"),
    ],
)
def test_wrong_input_gets_one_message(
    arguments: str, message: str, parts: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["export", *arguments.format(parts=parts, tmp=tmp_path, report=_REPORT).split()])
    assert caught.value.code == 2
    output = capfd.readouterr().err
    assert output.count("error: ") == 1
    assert message in output
    assert not (tmp_path / "out").exists()


def test_a_recommender_is_uploaded_as_it_is_saved(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded: dict[str, bytes] = {}

    class Hub:
        def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> None:
            assert (name, private, exist_ok) == ("owner/shop", True, True)

        def upload_folder(self, *, repo_id: str, folder_path: Path) -> None:
            assert repo_id == "owner/shop"
            files = (path for path in folder_path.rglob("*") if path.is_file())
            uploaded.update({str(file.relative_to(folder_path)): file.read_bytes() for file in files})

    monkeypatch.setattr("padrec.recommender.HfApi", Hub)
    Recommender.from_pretrained(shop, device="cpu").push_to_hub("owner/shop", private=True)
    assert {"README.md", "recommender.json", "target/model.safetensors", "draft/config.json"} <= set(uploaded)
