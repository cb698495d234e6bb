import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from padrec.catalog import Catalog, InputError, SemanticIDVocabulary
from padrec.data import SemanticIDDataModule
from padrec.decoding import ListRequest, TransformersRunner
from padrec.drafts import DraftCheckpoint, DraftWeights, FeatureDraft, PADRecDraft, PositionAware
from padrec.targets import TargetRecommender
from tests.drafts.reference_drafting import randomise
from tests.stubs import random_catalog
from tests.tiny_training import fitted, quiet_trainer, tiny_draft, tiny_recommender


def request_for(data: SemanticIDDataModule) -> ListRequest:
    return ListRequest.build(data.catalog, data.vocabulary, 2)


@pytest.fixture(scope="module")
def draft(data: SemanticIDDataModule, target_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> PADRecDraft:
    """Trained for two steps; its Lightning checkpoint and its folder lie beside the target."""
    draft = tiny_draft(data, target_folder)
    trainer = quiet_trainer(target_folder, max_steps=2, limit_val_batches=0)
    trainer.fit(draft, datamodule=data)
    trainer.save_checkpoint(target_folder.parent / "draft.ckpt")
    draft.save_pretrained(target_folder.parent / "draft")
    return draft


@pytest.mark.parametrize("name", ["draft.ckpt", "draft"])
def test_what_was_written_is_read(name: str, draft: PADRecDraft, target_folder: Path) -> None:
    found = DraftCheckpoint.read(target_folder.parent / name)
    expected = draft.checkpoint()
    assert found.settings == expected.settings
    assert found.target_fingerprint == expected.target_fingerprint
    assert found.vocabulary.fingerprint == expected.vocabulary.fingerprint
    network = found.network(draft.target.model.config)
    torch.testing.assert_close(network.state_dict(), draft.network.state_dict(), rtol=0, atol=0)


def test_the_folder_is_in_exchange_format(draft: PADRecDraft, target_folder: Path) -> None:
    folder = target_folder.parent / "draft"
    files = {"padrec.sha256", "config.json", "model.safetensors", "catalog"}
    assert {path.name for path in folder.iterdir()} == files
    assert set(load_file(folder / "model.safetensors")) == set(draft.network.state_dict())
    config = json.loads((folder / "config.json").read_text())
    assert config["kind"] == "draft"
    assert config["target_fingerprint"] == TargetRecommender.load(target_folder).fingerprint()


def with_other_ids(catalog: Catalog) -> Catalog:
    """The codes of the first two items swapped, which the sizes of codebooks do not tell."""
    codes = catalog.codes.clone()
    codes[[0, 1]] = codes[[1, 0]]
    assert not torch.equal(codes, catalog.codes)
    return Catalog(codes, catalog.keys)


@pytest.mark.parametrize("name", ["draft.ckpt", "draft"])
def test_other_ids_under_the_same_sizes_are_refused(
    name: str, draft: PADRecDraft, target_folder: Path, data: SemanticIDDataModule
) -> None:
    runner = TransformersRunner(draft.target.model, draft.target.fingerprint)
    for catalog, keys in (
        (with_other_ids(data.catalog), "2 of 30 items"),
        (random_catalog((5, 6, 7), 9), "none of its"),
    ):
        request = ListRequest.build(catalog, data.vocabulary, 2)
        with pytest.raises(InputError, match=f"the draft: {keys}"):
            FeatureDraft(str(target_folder.parent / name)).bind(runner, request)
    more = data.catalog.followed_by(Catalog(torch.tensor([[0, 0, 0]]), ["added"]))
    FeatureDraft(str(target_folder.parent / name)).bind(runner, ListRequest.build(more, data.vocabulary, 2))


def test_a_draft_is_not_trained_or_resumed_with_other_ids_than_its_targets(
    draft: PADRecDraft, target_folder: Path, data: SemanticIDDataModule
) -> None:
    other = with_other_ids(data.catalog)
    with pytest.raises(InputError, match=f"the target {target_folder}: 2 of 30 items have other semantic IDs"):
        tiny_draft(data, target_folder, catalog=other)
    resumed = tiny_draft(data, target_folder, catalog=None)
    resumed.catalog = other
    with pytest.raises(InputError, match="the checkpoint: 2 of 30 items have other semantic IDs"):
        quiet_trainer(target_folder, max_steps=3, limit_val_batches=0).fit(
            resumed, datamodule=data, ckpt_path=str(target_folder.parent / "draft.ckpt")
        )


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_draft_that_is_not_finite_is_refused(value: float, draft: PADRecDraft, tmp_path: Path) -> None:
    checkpoint = DraftCheckpoint(**{**vars(draft.checkpoint()), "weights": dict(draft.checkpoint().weights)})
    checkpoint.weights["fusion.bias"] = torch.full_like(checkpoint.weights["fusion.bias"], value)
    checkpoint.write(tmp_path / "draft")
    with pytest.raises(InputError, match=r"draft: fusion.bias holds NaN or infinity, expected finite weights"):
        FeatureDraft(str(tmp_path / "draft"))


def test_nothing_is_overwritten(draft: PADRecDraft, target_folder: Path) -> None:
    for folder in (target_folder.parent / "draft", target_folder):
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        with pytest.raises(InputError, match=f"{folder}: there already"):
            draft.save_pretrained(folder)
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_missing_draft_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.ckpt: no such file, expected the checkpoint or folder of a draft"):
        FeatureDraft(str(tmp_path / "absent.ckpt"))
    with pytest.raises(InputError, match=r"expected the files config\.json and model\.safetensors of a draft"):
        FeatureDraft(str(tmp_path))


def test_a_target_is_no_draft(data: SemanticIDDataModule, target_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json: kind None, expected 'draft'"):
        FeatureDraft(str(target_folder))
    trainer = quiet_trainer(tmp_path)
    trainer.strategy.connect(tiny_recommender(data))
    trainer.save_checkpoint(tmp_path / "target.ckpt")
    with pytest.raises(InputError, match="a checkpoint of kind 'target', expected 'draft'"):
        FeatureDraft(str(tmp_path / "target.ckpt"))


def test_a_draft_is_no_target(draft: PADRecDraft, target_folder: Path) -> None:
    with pytest.raises(InputError, match="a checkpoint of kind 'draft', expected 'target'"):
        TargetRecommender.load(target_folder.parent / "draft.ckpt")
    with pytest.raises(InputError, match=r"no vocabulary\.json, expected a target folder"):
        TargetRecommender.load(target_folder.parent / "draft")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint at all", b"{}"])
def test_a_file_that_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "draft.ckpt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"draft\.ckpt: cannot be read as a Lightning checkpoint"):
        DraftCheckpoint.read(path)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="kind None, expected 'draft'"):
        DraftCheckpoint.read(tmp_path / "other.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(InputError, match=r"list\.ckpt: holds a list, expected a checkpoint"):
        DraftCheckpoint.read(tmp_path / "list.ckpt")


def use(folder: Path, draft: PADRecDraft) -> None:
    checkpoint = DraftCheckpoint.read(folder)
    checkpoint.check(draft.target.fingerprint, draft.vocabulary)
    checkpoint.network(draft.target.model.config)


@pytest.mark.parametrize("key", ["settings", "target_fingerprint", "vocabulary"])
def test_a_description_without_a_part_is_refused(key: str, draft: PADRecDraft, tmp_path: Path) -> None:
    draft.save_pretrained(tmp_path / "draft")
    (tmp_path / "draft" / "padrec.sha256").unlink()
    config = json.loads((tmp_path / "draft" / "config.json").read_text())
    (tmp_path / "draft" / "config.json").write_text(json.dumps({**config, key: None}))
    with pytest.raises(InputError, match=r"expected the arguments of a vocabulary|no draft of this target|fingerprint"):
        use(tmp_path / "draft", draft)
    config.pop(key)
    (tmp_path / "draft" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=f"draft: a draft without {key}"):
        DraftCheckpoint.read(tmp_path / "draft")


def test_truncated_or_missing_weights_are_refused(draft: PADRecDraft, tmp_path: Path) -> None:
    draft.save_pretrained(tmp_path / "draft")
    file = tmp_path / "draft" / "model.safetensors"
    weights = load_file(file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors: not what was written"):
        DraftCheckpoint.read(tmp_path / "draft")
    (tmp_path / "draft" / "padrec.sha256").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read as safetensors"):
        DraftCheckpoint.read(tmp_path / "draft")
    weights.pop(min(weights))
    save_file(weights, file)
    with pytest.raises(InputError, match=r"no draft of this target .*Missing key"):
        use(tmp_path / "draft", draft)


def test_malformed_json_is_refused(draft: PADRecDraft, target_folder: Path, tmp_path: Path) -> None:
    draft.save_pretrained(tmp_path / "broken")
    (tmp_path / "broken" / "config.json").write_text('{"kind": "draft",')
    (tmp_path / "broken" / "padrec.sha256").unlink()
    with pytest.raises(InputError, match=r"config\.json: no valid JSON"):
        DraftCheckpoint.read(tmp_path / "broken")


@pytest.mark.parametrize("name", ["draft.ckpt", "draft"])
def test_another_target_is_refused_and_both_are_named(
    name: str, draft: PADRecDraft, target_folder: Path, data: SemanticIDDataModule
) -> None:
    other = tiny_recommender(data, init_seed=1)
    runner = TransformersRunner(other.backbone, other.fingerprint())
    with pytest.raises(InputError) as caught:
        FeatureDraft(str(target_folder.parent / name)).bind(runner, request_for(data))
    assert draft.target.fingerprint in str(caught.value)
    assert other.fingerprint() in str(caught.value)


@pytest.mark.parametrize("name", ["draft.ckpt", "draft"])
def test_another_vocabulary_is_refused_and_both_are_named(
    name: str, draft: PADRecDraft, target_folder: Path, data: SemanticIDDataModule
) -> None:
    other = SemanticIDVocabulary((9, 9, 9))
    request = ListRequest.build(random_catalog((9, 9, 9), 20), other, 2)
    runner = TransformersRunner(draft.target.model, draft.target.fingerprint)
    with pytest.raises(InputError) as caught:
        FeatureDraft(str(target_folder.parent / name)).bind(runner, request)
    assert str(data.vocabulary) in str(caught.value)
    assert str(other) in str(caught.value)


def test_padrec_starts_where_another_draft_ended(
    data: SemanticIDDataModule, target_folder: Path, tmp_path: Path
) -> None:
    eagle = tiny_draft(data, target_folder, init_seed=1, position_aware=None, unrolled_steps=1)
    randomise(eagle.network)
    eagle.save_pretrained(tmp_path / "eagle")
    padrec = tiny_draft(data, target_folder, initial_weights=DraftWeights(str(tmp_path / "eagle")))
    batch = next(iter(data.train_dataloader()))
    losses = [fitted(draft, tmp_path, [batch]).callback_metrics["train/loss_step_1"] for draft in (eagle, padrec)]
    assert losses[0] == losses[1]
    other = tiny_draft(data, target_folder, init_seed=2)
    fitted(other, tmp_path, [batch]).save_checkpoint(tmp_path / "padrec.ckpt")
    again = tiny_draft(data, target_folder, initial_weights=DraftWeights(str(tmp_path / "padrec.ckpt")))
    torch.testing.assert_close(dict(again.network.state_dict()), dict(other.network.state_dict()), rtol=0, atol=0)


def test_an_initial_draft_that_does_not_fit_is_refused(
    data: SemanticIDDataModule, target_folder: Path, tmp_path: Path
) -> None:
    tiny_draft(data, target_folder).save_pretrained(tmp_path / "draft")
    initial = DraftWeights(str(tmp_path / "draft"))
    with pytest.raises(InputError, match=r"(?s)does not fit this draft.*slot_embedding"):
        tiny_draft(data, target_folder, position_aware=PositionAware(slots=None), initial_weights=initial)
    with pytest.raises(InputError, match=r"(?s)does not fit this draft.*step_embedding"):
        tiny_draft(data, target_folder, unrolled_steps=5, initial_weights=initial)
    with pytest.raises(InputError, match="no such file, expected the checkpoint or folder of a draft"):
        tiny_draft(data, target_folder, initial_weights=DraftWeights(str(tmp_path / "absent")))
    tiny_recommender(data, init_seed=1).save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match="the draft was trained for the target with fingerprint"):
        tiny_draft(data, tmp_path / "other", initial_weights=initial)
