"""Drafts with one pass an item, from training to lists."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from padrec.cli import main
from padrec.data import SemanticIDDataModule
from padrec.decoding import (
    AdaptiveDecoder,
    AutoregressiveDecoder,
    BatchSizeDecoder,
    ItemTree,
    ListRequest,
    Prompts,
    SpeculativeDecoder,
    TransformersRunner,
)
from padrec.drafts import DraftWeights, FeatureDraft, ItemDraft, LogAcceptance
from padrec.recommender_folder import DecoderSettings
from padrec.targets import TargetRecommender
from tests.drafts.reference_drafting import randomise
from tests.drafts.test_padrec_draft import GradientRecorder, target_lists
from tests.tiny_training import (
    first_prompts,
    fitted,
    sequence_batch,
    tiny_data,
    tiny_draft,
    tiny_recommender,
    validated_acceptance,
)

_REPOSITORY = Path(__file__).parents[2]
_CONF = _REPOSITORY / "tests" / "conf"


def item_draft(data: SemanticIDDataModule, target: Path, **arguments: Any) -> ItemDraft:
    """An untrained draft for a target that was saved before."""
    given = {"catalog": data.catalog, "list_length": data.list_length, "unrolled_steps": 3, "warmup_steps": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ItemDraft(str(target), data.vocabulary, **{"rank": 16, **given, **arguments})


def test_the_shipped_config_trains_a_draft_whose_lists_are_the_target_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PADREC_TEST_RUNS", str(tmp_path))
    main(["fit", "--config", str(_CONF / "target.yaml")])
    config = ["--config", str(_CONF / "draft.yaml")]
    main(["fit", *config, "--trainer.logger.init_args.name=base", "--model.init_args.position_aware=null"])
    initial = (
        f'{{"class_path": "padrec.DraftWeights", "init_args": {{"path": "{tmp_path}/base/checkpoints/last.ckpt"}}}}'
    )
    config += ["--config", str(_REPOSITORY / "experiments" / "base_drafts" / "item.yaml")]
    config += ["--model.init_args.position_aware=null", f"--model.init_args.initial_weights={initial}"]
    main(["fit", *config, "--trainer.logger.init_args.name=item"])
    draft = {"class_path": "padrec.FeatureDraft", "init_args": {"checkpoint": f"{tmp_path}/item/checkpoints/last.ckpt"}}
    tree = {"class_path": "padrec.ItemTree", "init_args": {"depth": 8, "item_length": 4}}
    item = {"class_path": "padrec.SpeculativeDecoder", "init_args": {"draft": draft, "expansion": tree}}
    arms = json.dumps({"autoregressive": {"class_path": "padrec.AutoregressiveDecoder"}, "item": item})
    main(["test", "--config", str(_CONF / "evaluate.yaml"), f"--model.init_args.arms={arms}"])
    report = json.loads(next((tmp_path / "evaluate").rglob("report.json")).read_text())["arms"]["item"]
    assert report["identical_lists"] == 1
    assert report["acceptance_length"] > 1


def test_losses_are_those_of_passes_and_heads_and_all_of_the_network_trains(
    data: SemanticIDDataModule, target_folder: Path, tmp_path: Path
) -> None:
    draft, recorder = item_draft(data, target_folder, distillation=LogAcceptance()), GradientRecorder()
    trainer = fitted(draft, tmp_path, list(data.train_dataloader())[:2], callbacks=[recorder])
    # A pass, a head for each of three tokens, and two further passes with their heads.
    losses = {name for name in trainer.callback_metrics if "loss_step" in name}
    assert (
        losses
        == {f"train/loss_step_{step}" for step in range(1, 7)}
        == {n for n in draft.metric_names() if n in losses}
    )
    assert recorder.with_gradient == {f"network.{name}" for name, _ in draft.network.named_parameters()}


@pytest.mark.parametrize("separator", [True, False])
def test_rows_without_supervision_have_no_loss(separator: bool, tmp_path: Path) -> None:
    data = tiny_data(separator=separator)
    tiny_recommender(data).save_pretrained(tmp_path / "target")
    draft = item_draft(data, tmp_path / "target", distillation=LogAcceptance())
    whole = next(iter(data.train_dataloader()))
    whole.supervised[:] = False
    for batch in (whole, *(sequence_batch(torch.tensor([row]), data.vocabulary) for row in ([1], [1, 4]))):
        logged = fitted(draft, tmp_path, [batch]).callback_metrics
        assert float(logged["train/loss"]) == 0
        assert not any(value.isnan() for value in logged.values())


def test_it_starts_where_a_base_draft_ended(data: SemanticIDDataModule, target_folder: Path, tmp_path: Path) -> None:
    base = tiny_draft(data, target_folder)
    randomise(base.network)
    base.save_pretrained(tmp_path / "base")
    item = item_draft(data, target_folder, initial_weights=DraftWeights(str(tmp_path / "base")))
    batch = next(iter(data.train_dataloader()))
    losses = [fitted(draft, tmp_path, [batch]).callback_metrics["train/loss_step_1"] for draft in (base, item)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=0)


@pytest.mark.parametrize("separator", [True, False])
def test_it_learns_the_lists_of_its_target(separator: bool, tmp_path: Path) -> None:
    data = tiny_data(list_length=10, max_users=4, separator=separator)
    target = tiny_recommender(data, init_seed=2)
    target.save_pretrained(tmp_path / "target")
    draft = item_draft(data, tmp_path / "target", learning_rate=0.02, soft_weight=1.0)
    untrained = validated_acceptance(draft, data, tmp_path)
    fitted(draft, tmp_path, [target_lists(target, first_prompts(data))] * 100, limit_val_batches=0)
    assert validated_acceptance(draft, data, tmp_path) > untrained + 1


def test_decoders_that_choose_take_it_with_its_trees(
    data: SemanticIDDataModule, target_folder: Path, tmp_path: Path
) -> None:
    item_draft(data, target_folder).save_pretrained(tmp_path / "draft")
    draft = FeatureDraft(str(tmp_path / "draft"))
    model = TargetRecommender.load(target_folder).backbone.double().eval().requires_grad_(False)
    runner = TransformersRunner(model, TargetRecommender.load(target_folder).fingerprint())
    batch = first_prompts(data)
    prompts = Prompts(batch.tokens, batch.slots, batch.lengths)
    request = ListRequest.build(data.catalog, data.vocabulary, 3)
    trees = [ItemTree(depth, 2, 8, item_length=data.vocabulary.item_length) for depth in (3, 8)]
    decoders = [
        AutoregressiveDecoder(),
        AdaptiveDecoder(draft),
        AdaptiveDecoder(draft, trees),
        DecoderSettings(adaptive=True).decoder(tmp_path / "draft"),
        BatchSizeDecoder(AutoregressiveDecoder(), SpeculativeDecoder(draft, trees[0])),
    ]
    lists = [one.bind(runner, request).decode(prompts, torch.Generator().manual_seed(0))[0].tokens for one in decoders]
    assert all(torch.equal(found, lists[0]) for found in lists)
