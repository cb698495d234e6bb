"""Training AtSpeed drafts: the program, what it saves, and what it refuses."""

from pathlib import Path

import pytest
import torch

from padrec.catalog import CatalogTrie, InputError, SemanticIDVocabulary
from padrec.cli import main
from padrec.data import SemanticIDDataModule
from padrec.decoding import BeamDecoder, ListRequest, Prompts, SpeculativeBeamDecoder, TransformersRunner
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.drafts import (
    TVDKD,
    AtSpeedBeamDraft,
    AtSpeedDraft,
    DistillationObjective,
    FeatureDraft,
    SeqKD,
    TopKAlignment,
    TotalVariation,
    WordKD,
)
from tests.stubs import random_catalog
from tests.tiny_training import first_prompts, fitted, quiet_trainer, tiny_atspeed, tiny_backbone, tiny_recommender

_CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def draft(data: SemanticIDDataModule, target_folder: Path) -> AtSpeedDraft:
    """Trained for two steps; its Lightning checkpoint and its folder lie beside the target."""
    draft = tiny_atspeed(data, target_folder)
    trainer = quiet_trainer(target_folder, max_steps=2, limit_val_batches=0)
    trainer.fit(draft, datamodule=data)
    trainer.save_checkpoint(target_folder.parent / "atspeed.ckpt")
    draft.save_pretrained(target_folder.parent / "atspeed")
    return draft


def fit(name: str, arguments: str = "") -> None:
    """`padrec fit --config tests/conf/NAME.yaml ARGUMENTS`."""
    main(["fit", "--config", str(_CONF / f"{name}.yaml"), *arguments.split()])


def test_a_fit_resumes_as_if_it_had_not_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADREC_TEST_RUNS", str(tmp_path))
    fit("target", "--trainer.max_epochs=1")
    fit("atspeed")
    checkpoints = tmp_path / "atspeed" / "checkpoints"
    fit("atspeed", f"--trainer.logger.init_args.name=resumed --ckpt_path={checkpoints / 'step=3.ckpt'}")
    again = tmp_path / "resumed" / "checkpoints"
    whole, resumed = (torch.load(folder / "step=6.ckpt", weights_only=True) for folder in (checkpoints, again))
    assert whole["global_step"] == resumed["global_step"] == 6
    torch.testing.assert_close(resumed["state_dict"], whole["state_dict"], rtol=0, atol=0)
    header = (tmp_path / "atspeed" / "metrics.csv").read_text().splitlines()[0].split(",")
    for name in ("train/loss", "train/cross_entropy", "train/distillation", "val/accepted_steps"):
        assert name in header
    assert [f"val/contained_slot_{slot}" in header for slot in range(3)] == [True] * 3


@pytest.mark.parametrize("objective", [TopKAlignment(), TotalVariation(), WordKD(), TVDKD(), SeqKD()])
def test_every_objective_makes_the_draft_agree_with_the_target(
    objective: DistillationObjective, data: SemanticIDDataModule, target_folder: Path, tmp_path: Path
) -> None:
    draft = tiny_atspeed(data, target_folder, objective=objective, objective_weight=1.0, learning_rate=3e-2)
    before = {name: weight.clone() for name, weight in draft.target.model.state_dict().items()}
    batch = next(iter(data.train_dataloader()))
    values = [float(fitted(draft, tmp_path, [batch] * 6).callback_metrics["train/loss"]) for _ in range(2)]
    assert values[1] < values[0]
    torch.testing.assert_close(dict(draft.target.model.state_dict()), before, rtol=0, atol=0)
    assert set(draft.state_dict()) == {f"network.{name}" for name in draft.network.state_dict()}


def test_the_target_as_its_own_draft_is_always_accepted(data: SemanticIDDataModule, target_folder: Path) -> None:
    draft = tiny_atspeed(data, target_folder, backbone=tiny_backbone(), draft_width=data.list_length)
    draft.network.load_state_dict(draft.target.model.state_dict())
    (found,) = quiet_trainer(target_folder).validate(draft, data, verbose=False)
    assert found["val/accepted_steps"] == data.catalog.n_slots - 1
    assert [found[f"val/contained_slot_{slot}"] for slot in range(3)] == [1, 1, 1]


def test_rows_without_an_item_to_draw_change_nothing(
    data: SemanticIDDataModule, target_folder: Path, tmp_path: Path
) -> None:
    draft = tiny_atspeed(data, target_folder, weight_decay=0.0)
    before = {name: weight.clone() for name, weight in draft.network.state_dict().items()}
    batch = next(iter(data.train_dataloader()))
    batch.supervised[:] = False
    logged = fitted(draft, tmp_path, [batch]).callback_metrics
    assert float(logged["train/loss"]) == 0
    torch.testing.assert_close(dict(draft.network.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["atspeed.ckpt", "atspeed"])
def test_a_trained_draft_proposes_as_it_was_trained(
    name: str, draft: AtSpeedDraft, data: SemanticIDDataModule, target_folder: Path
) -> None:
    runner = TransformersRunner(draft.target.model, draft.target.fingerprint)
    request = ListRequest.build(data.catalog, data.vocabulary, data.list_length)
    opened = AtSpeedBeamDraft(str(target_folder.parent / name)).bind(runner, request)
    batch = first_prompts(data)
    prompts = Prompts(batch.tokens, batch.slots, batch.lengths)
    constraint = CatalogConstraint(CatalogTrie(data.catalog, data.vocabulary), data.vocabulary, data.list_length)
    with torch.inference_mode():
        found = opened(len(batch.tokens), batch.tokens.shape[1], constraint).begin(prompts, None)
        logits = draft.network.eval()(input_ids=batch.tokens).logits
    last = logits[torch.arange(len(logits)), batch.lengths - 1]
    torch.testing.assert_close(found, last, rtol=1e-5, atol=1e-5)


def test_a_trained_draft_runs_ahead_of_its_target_alone(
    draft: AtSpeedDraft, data: SemanticIDDataModule, target_folder: Path
) -> None:
    runner = TransformersRunner(draft.target.model, draft.target.fingerprint)
    decoder = SpeculativeBeamDecoder(AtSpeedBeamDraft(str(target_folder.parent / "atspeed")), draft_width=6)
    batch = first_prompts(data)
    prompts = Prompts(batch.tokens, batch.slots, batch.lengths)
    request = ListRequest.build(data.catalog, data.vocabulary, data.list_length)
    found, expected = (
        one.bind(runner, request).decode(prompts, torch.Generator())[0] for one in (decoder, BeamDecoder())
    )
    assert torch.equal(found.leaves, expected.leaves)
    other = SemanticIDVocabulary((9, 9, 9))
    another = ListRequest.build(random_catalog((9, 9, 9), 20), other, 2)
    with pytest.raises(InputError) as caught:
        decoder.bind(runner, another).decode(prompts, torch.Generator())
    assert str(data.vocabulary) in str(caught.value)
    assert str(other) in str(caught.value)


@pytest.mark.parametrize("name", ["atspeed.ckpt", "atspeed"])
def test_another_target_is_refused_and_both_are_named(
    name: str, draft: AtSpeedDraft, data: SemanticIDDataModule, target_folder: Path
) -> None:
    other = tiny_recommender(data, init_seed=1)
    runner = TransformersRunner(other.backbone, other.fingerprint())
    request = ListRequest.build(data.catalog, data.vocabulary, data.list_length)
    with pytest.raises(InputError) as caught:
        AtSpeedBeamDraft(str(target_folder.parent / name)).bind(runner, request)
    assert draft.target.fingerprint in str(caught.value)
    assert other.fingerprint() in str(caught.value)


def test_drafts_of_lists_and_of_beams_are_told_apart(draft: AtSpeedDraft, target_folder: Path) -> None:
    for name in ("atspeed.ckpt", "atspeed"):
        with pytest.raises(InputError, match="kind 'language model draft', expected 'draft'"):
            FeatureDraft(str(target_folder.parent / name))
    with pytest.raises(InputError, match="kind None, expected 'language model draft'"):
        AtSpeedBeamDraft(str(target_folder))


def test_a_checkpoint_does_not_continue_with_another_target(
    draft: AtSpeedDraft, data: SemanticIDDataModule, target_folder: Path, tmp_path: Path
) -> None:
    tiny_recommender(data, init_seed=1).save_pretrained(tmp_path / "other")
    other = tiny_atspeed(data, tmp_path / "other")
    with pytest.raises(InputError, match="the draft was trained for the target with fingerprint"):
        quiet_trainer(tmp_path, max_steps=4).fit(other, data, ckpt_path=target_folder.parent / "atspeed.ckpt")


def test_sizes_that_do_not_fit_the_data_are_refused(data: SemanticIDDataModule, target_folder: Path) -> None:
    with pytest.raises(InputError, match=f"n_beams 99 .* expected at most the catalog's {data.catalog.n_leaves} diff"):
        tiny_atspeed(data, target_folder, n_beams=99)
    with pytest.raises(InputError, match=r"draft_width 2: .* at least list_length 3"):
        tiny_atspeed(data, target_folder, draft_width=2)
    with pytest.raises(InputError, match="hidden_sizes"):
        tiny_atspeed(data, target_folder, backbone={"model_type": "llama", "hidden_sizes": 8})
