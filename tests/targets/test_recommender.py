import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import Tensor

from padrec.catalog import Catalog, InputError
from padrec.data import SemanticIDDataModule
from padrec.decoding import (
    AutoregressiveDecoder,
    BeamDecoder,
    ListRequest,
    Prompts,
    SpeculativeDecoder,
    TransformersRunner,
)
from padrec.drafts import FeatureDraft
from padrec.metrics import NDCG
from padrec.targets import TargetRecommender, TargetWeights, to_precision
from tests.reference import PlainTarget, leaf_tokens
from tests.tiny_training import (
    first_prompts,
    quiet_trainer,
    same_batches,
    tiny_backbone,
    tiny_data,
    tiny_draft,
    tiny_recommender,
)


@pytest.fixture(scope="module")
def data() -> SemanticIDDataModule:
    return tiny_data()


def logits(target: TargetRecommender) -> Tensor:
    with torch.no_grad():
        tokens = torch.arange(target.vocabulary.size)[None]
        result: Tensor = target.backbone.eval()(input_ids=tokens, use_cache=False).logits
    return result


def trained(data: SemanticIDDataModule, folder: Path, **arguments: Any) -> TargetRecommender:
    """After three steps, with its checkpoint at `target.ckpt` and its folder at `target`."""
    target = tiny_recommender(data, **arguments)
    trainer = quiet_trainer(folder, max_steps=3, limit_val_batches=0)
    trainer.fit(target, datamodule=data)
    trainer.save_checkpoint(folder / "target.ckpt")
    target.save_pretrained(folder / "target")
    return target


def plain_loss(target: TargetRecommender, rows: list[tuple[list[int], list[bool]]]) -> float:
    """Mean over supervised tokens, each row on its own, without padding."""
    losses = []
    for tokens, supervised in rows:
        with torch.no_grad():
            scores = target.backbone.eval()(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].double()
        for place in range(1, len(tokens)):
            if supervised[place]:
                weights = [math.exp(score) for score in scores[place - 1].tolist()]
                losses.append(-math.log(weights[tokens[place]] / sum(weights)))
    return sum(losses) / len(losses)


def test_training_loss_is_the_mean_over_supervised_tokens(data: SemanticIDDataModule, tmp_path: Path) -> None:
    data.setup("fit")
    batch = max(data.train_dataloader(), key=lambda batch: int(batch.lengths.max() - batch.lengths.min()))
    # As in windows with history and in generated lists, the first tokens are only read.
    batch.supervised[0, :5] = False
    lengths = batch.lengths.tolist()
    assert len(set(lengths)) > 1
    rows = [
        (tokens[:n], flags[:n])
        for tokens, flags, n in zip(batch.tokens.tolist(), batch.supervised.tolist(), lengths, strict=True)
    ]
    target = tiny_recommender(data)
    expected = plain_loss(target, rows)
    trainer = quiet_trainer(tmp_path, max_steps=1)
    trainer.fit(target, same_batches([batch]))
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(expected, rel=1e-5)


def test_rows_without_supervision_have_no_loss(data: SemanticIDDataModule, tmp_path: Path) -> None:
    batch = next(iter(data.train_dataloader()))
    batch.supervised[:] = False
    target = tiny_recommender(data, weight_decay=0.0)
    before = {name: weight.clone() for name, weight in target.backbone.state_dict().items()}
    trainer = quiet_trainer(tmp_path, max_steps=1)
    trainer.fit(target, same_batches([batch]))
    assert float(trainer.callback_metrics["train/loss"]) == 0.0
    torch.testing.assert_close(dict(target.backbone.state_dict()), before, rtol=0, atol=0)


def test_label_smoothing_gives_every_token_a_share_of_the_truth(data: SemanticIDDataModule, tmp_path: Path) -> None:
    batch = next(iter(data.train_dataloader()))
    target = tiny_recommender(data, label_smoothing=0.2)
    with torch.no_grad():
        logits = target.backbone.eval()(input_ids=batch.tokens, use_cache=False).logits[:, :-1]
    log_probs = logits.double().log_softmax(-1)
    truth = log_probs.gather(-1, batch.tokens[:, 1:, None])[..., 0]
    losses = -(0.8 * truth + 0.2 * log_probs.mean(-1))
    trainer = quiet_trainer(tmp_path, max_steps=1)
    trainer.fit(target, same_batches([batch]))
    expected = float(losses[batch.supervised[:, 1:]].mean())
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(InputError, match="label_smoothing is 1, expected at least 0 and less than 1"):
        tiny_recommender(data, label_smoothing=1)


def test_dropout_is_noise_of_the_step(data: SemanticIDDataModule, tmp_path: Path) -> None:
    batch = next(iter(data.train_dataloader()))

    def loss(**arguments: Any) -> float:
        trainer = quiet_trainer(tmp_path, max_steps=1)
        trainer.fit(tiny_recommender(data, **arguments), same_batches([batch]))
        return float(trainer.callback_metrics["train/loss"])

    assert loss(dropout=0.4) == loss(dropout=0.4) != loss()


def test_a_running_mean_of_the_weights_is_what_is_validated_and_kept(
    data: SemanticIDDataModule, tmp_path: Path
) -> None:
    kept = ModelCheckpoint(tmp_path, "mean", save_weights_only=False)
    average = EMAWeightAveraging(decay=0.5)
    trainer = quiet_trainer(tmp_path, max_epochs=1, callbacks=[kept, average], enable_checkpointing=True)
    steps: list[Tensor] = []

    class Steps(TargetRecommender):
        def on_train_batch_end(self, *arguments: object) -> None:
            steps.append(self.backbone.get_output_embeddings().weight.detach().clone())

    target = tiny_recommender(data, kind=Steps, learning_rate=0.1)
    trainer.fit(target, datamodule=data)
    mean = steps[0]
    for weight in steps[1:]:
        mean = 0.5 * mean + 0.5 * weight
    found = TargetRecommender.load(tmp_path / "mean.ckpt", data.catalog)
    torch.testing.assert_close(found.backbone.get_output_embeddings().weight, mean)
    assert not torch.allclose(mean, steps[-1])


def test_training_learns(data: SemanticIDDataModule, tmp_path: Path) -> None:
    target = tiny_recommender(data, learning_rate=0.01)
    trainer = quiet_trainer(tmp_path, max_epochs=8, limit_val_batches=0)
    batch = next(iter(data.train_dataloader()))
    trainer.fit(target, same_batches([batch] * 5))
    rows = [(tokens, flags) for tokens, flags in zip(batch.tokens.tolist(), batch.supervised.tolist(), strict=True)]
    assert plain_loss(target, rows) < 0.6 * plain_loss(tiny_recommender(data), rows)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_saved_target_is_read_back(compiled: bool, data: SemanticIDDataModule, tmp_path: Path) -> None:
    if compiled:  # compiling itself would take a minute here
        torch.compiler.set_stance("force_eager")
    try:
        target = trained(data, tmp_path, compile=compiled)
    finally:
        torch.compiler.set_stance("default")
    expected = logits(target)
    for name in ("target.ckpt", "target"):
        found = TargetRecommender.load(tmp_path / name)
        assert found.vocabulary.fingerprint == data.vocabulary.fingerprint
        assert found.fingerprint() == target.fingerprint()
        assert torch.equal(logits(found), expected)
    # Whether training is compiled is a matter of each run, not of the weights.
    checkpoint = torch.load(tmp_path / "target.ckpt", weights_only=True)
    tiny_recommender(data, compile=not compiled).load_state_dict(checkpoint["state_dict"])
    assert set(checkpoint["state_dict"]) == {f"backbone.{name}" for name in target.backbone.state_dict()}


def test_a_folder_keeps_every_setting_of_the_model(data: SemanticIDDataModule, tmp_path: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 77.0}
    backbone = {"model_type": "qwen3", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    backbone |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64}
    target = tiny_recommender(
        data, backbone={**backbone, "attention_dropout": 0.1, "rope_parameters": rope, "tie_word_embeddings": True}
    )
    target.save_pretrained(tmp_path / "target")
    found = TargetRecommender.load(tmp_path / "target")
    for name in ("attention_dropout", "rope_parameters", "tie_word_embeddings", "head_dim", "pad_token_id"):
        assert getattr(found.backbone.config, name) == getattr(target.backbone.config, name), name
    assert torch.equal(logits(found), logits(target))
    found.save_pretrained(tmp_path / "again")
    assert TargetRecommender.load(tmp_path / "again").fingerprint() == target.fingerprint()


def test_checkpoints_hold_tensors_and_primitives(data: SemanticIDDataModule, tmp_path: Path) -> None:
    trained(data, tmp_path, temperature=0.7)
    checkpoint = torch.load(tmp_path / "target.ckpt", weights_only=True)
    assert checkpoint["kind"] == "target"
    # What only affects decoding must not come back from a checkpoint.
    assert set(checkpoint["hyper_parameters"]) == {
        "backbone",
        "pretrained",
        "lora",
        "learning_rate",
        "weight_decay",
        "warmup_steps",
        "dropout",
        "label_smoothing",
        "compile",
        "seed",
    }


@pytest.mark.parametrize("action", ["fit", "validate"])
def test_another_vocabulary_is_refused_with_one_message(
    action: str, data: SemanticIDDataModule, tmp_path: Path
) -> None:
    trained(data, tmp_path)
    other = tiny_data(separator=False)
    run = getattr(quiet_trainer(tmp_path, max_steps=5), action)
    with pytest.raises(InputError) as caught:
        run(tiny_recommender(other), datamodule=other, ckpt_path=tmp_path / "target.ckpt")
    assert str(data.vocabulary) in str(caught.value)
    assert str(other.vocabulary) in str(caught.value)


def test_a_missing_target_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.ckpt: no such file, expected the checkpoint or folder of a target"):
        TargetRecommender.load(tmp_path / "absent.ckpt")
    with pytest.raises(InputError, match=r"no config\.json, expected a target folder"):
        TargetRecommender.load(tmp_path)


def greedy_leaves(target: TargetRecommender, data: SemanticIDDataModule) -> list[list[int]]:
    """Lists of the first prompts, token by token without a cache."""
    prompts = first_prompts(data)
    leaves = leaf_tokens(data.catalog, data.vocabulary)
    found = []
    for tokens, length in zip(prompts.tokens.tolist(), prompts.lengths.tolist(), strict=True):
        plain = PlainTarget(target.backbone.eval(), tokens[:length], data.vocabulary, leaves, data.list_length)
        written, _ = plain.greedy_list()
        step = data.vocabulary.item_length
        items = [tuple(written[start : start + step - 1]) for start in range(0, len(written), step)]
        found.append([leaves.index(item) for item in items])
    return found


def test_validation_ranks_the_greedy_lists(tmp_path: Path) -> None:
    data = tiny_data(max_users=4, list_length=10)
    target = tiny_recommender(data)
    metrics = quiet_trainer(tmp_path).validate(target, datamodule=data, verbose=False)[0]
    expected: dict[str, list[float]] = {f"val/{name}@{k}": [] for name in ("ndcg", "recall") for k in (5, 10)}
    with torch.no_grad():
        lists = greedy_leaves(target, data)
    for leaves, relevant in zip(lists, first_prompts(data).relevant.tolist(), strict=True):
        assert len(relevant) == 1  # leave-one-out
        for k in (5, 10):
            rank = leaves.index(relevant[0]) + 1 if relevant[0] in leaves[:k] else None
            expected[f"val/recall@{k}"].append(float(rank is not None))
            expected[f"val/ndcg@{k}"].append(1 / math.log2(rank + 1) if rank is not None else 0.0)
    assert metrics == pytest.approx({name: sum(values) / 4 for name, values in expected.items()})
    assert metrics["val/recall@10"] > 0


def test_a_decoder_that_ranks_validates_and_predicts_by_its_ranking(data: SemanticIDDataModule, tmp_path: Path) -> None:
    decoder = BeamDecoder(beam_width=20)
    target = tiny_recommender(data, decoder=decoder)
    runner = TransformersRunner(target.backbone.eval())
    request = ListRequest.build(data.catalog, data.vocabulary, data.list_length)
    ndcg = NDCG(10)
    for batch in data.val_dataloader():
        prompts = Prompts(batch.tokens, batch.slots, batch.lengths)
        expected, _ = decoder.bind(runner, request).decode(prompts, torch.Generator())
        assert torch.equal(target.predict_step(batch, 0).leaves, expected.leaves)
        ndcg.update(expected.leaves, batch.relevant, batch.counted)
    trainer = quiet_trainer(tmp_path)
    for _ in range(2):  # nothing of the first validation is left in the second
        metrics = trainer.validate(target, datamodule=data, verbose=False)[0]
        assert metrics["val/ndcg@10"] == pytest.approx(float(ndcg.compute()))


def test_a_trained_draft_can_speculate_for_predictions(data: SemanticIDDataModule, tmp_path: Path) -> None:
    target = tiny_recommender(data)
    target.save_pretrained(tmp_path / "target")
    tiny_draft(data, tmp_path / "target").save_pretrained(tmp_path / "draft")
    decoder = SpeculativeDecoder(FeatureDraft(str(tmp_path / "draft")))
    prompts = first_prompts(data)
    found = tiny_recommender(data, decoder=decoder).predict_step(prompts, 0)
    assert torch.equal(found.tokens, target.predict_step(prompts, 0).tokens)
    with pytest.raises(InputError, match="the draft was trained for the target with fingerprint"):
        tiny_recommender(data, init_seed=1, decoder=decoder).predict_step(prompts, 0)


def test_prediction_writes_lists_at_its_temperature(data: SemanticIDDataModule) -> None:
    prompts = first_prompts(data)
    greedy = tiny_recommender(data)
    with torch.no_grad():
        assert greedy.predict_step(prompts, 0).leaves.tolist() == greedy_leaves(greedy, data)
    sampled = tiny_recommender(data, temperature=3.0)
    lists = [sampled.predict_step(prompts, number).leaves for number in (0, 0, 1)]
    assert torch.equal(lists[0], lists[1])
    assert not torch.equal(lists[0], lists[2])
    reseeded = tiny_recommender(data, temperature=3.0, seed=1)
    assert not torch.equal(lists[0], reseeded.predict_step(prompts, 0).leaves)


def test_lists_are_written_in_the_precision_of_the_training_steps(data: SemanticIDDataModule) -> None:
    target, prompts = tiny_recommender(data), first_prompts(data)
    exact = deepcopy(target.backbone.state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        found = target.predict_step(prompts, 0)
    half = deepcopy(target.backbone).eval()
    to_precision(half, torch.bfloat16)
    request = ListRequest.build(data.catalog, data.vocabulary, data.list_length)
    inputs = Prompts(prompts.tokens, prompts.slots, prompts.lengths)
    expected, _ = AutoregressiveDecoder().bind(TransformersRunner(half), request).decode(inputs, torch.Generator())
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.log_probs, expected.log_probs)
    # The weights that are trained stay as they are.
    torch.testing.assert_close(target.backbone.state_dict(), exact, rtol=0, atol=0)


@pytest.mark.parametrize("stage", ["fit", "validate", "predict"])
def test_texts_longer_than_the_positions_are_refused_at_set_up(
    stage: str, data: SemanticIDDataModule, tmp_path: Path
) -> None:
    target = tiny_recommender(data, backbone=tiny_backbone(max_position_embeddings=20))
    needed = data.max_sequence_tokens
    with pytest.raises(InputError, match=f"knows the positions of 20 tokens .*: expected at least {needed}"):
        getattr(quiet_trainer(tmp_path), stage)(target, datamodule=data)


@pytest.mark.parametrize("form", ["checkpoint", "folder"])
def test_other_semantic_ids_under_the_same_sizes_are_refused_and_added_items_allowed(
    form: str, data: SemanticIDDataModule, tmp_path: Path
) -> None:
    target = tiny_recommender(data)
    trainer = quiet_trainer(tmp_path, max_steps=1, limit_val_batches=0)
    trainer.fit(target, datamodule=data)
    if form == "folder":
        target.save_pretrained(tmp_path / form)
    else:
        trainer.save_checkpoint(tmp_path / form)
    codes = data.catalog.codes.roll(1, 0)
    with pytest.raises(InputError, match=r"the (checkpoint|saved target): \d+ of 30 items have other semantic IDs"):
        TargetRecommender.load(tmp_path / form, Catalog(codes, data.catalog.keys))
    more = data.catalog.followed_by(Catalog(torch.tensor([[0, 0, 0]]), ["added"]))
    assert TargetRecommender.load(tmp_path / form, more).catalog is more


def test_users_whose_logits_are_not_finite_are_named(data: SemanticIDDataModule, tmp_path: Path) -> None:
    target, prompts = tiny_recommender(data), next(iter(data.test_dataloader()))
    token = int(prompts.tokens[1, 1])
    embedding: Any = target.backbone.get_input_embeddings()
    embedding.weight.data[token] = torch.nan
    named = [data.user_keys[user] for user, row in zip(prompts.users, prompts.tokens, strict=True) if token in row]
    with pytest.raises(InputError, match=r"logits for row .* are not finite"):
        target.predict_step(prompts, 0)
    with pytest.raises(InputError, match=f"logits for user {named[0]!r}.* are not finite"):
        quiet_trainer(tmp_path).predict(target, data)


def test_lists_need_the_catalog(data: SemanticIDDataModule) -> None:
    with pytest.raises(InputError, match="writing lists needs the catalog"):
        tiny_recommender(data, catalog=None).predict_step(first_prompts(data), 0)


def test_training_goes_on_from_another_target(tmp_path: Path) -> None:
    data = tiny_data()
    first = tiny_recommender(data)
    trainer = quiet_trainer(tmp_path, max_steps=3, limit_val_batches=0)
    trainer.fit(first, datamodule=data)
    trainer.save_checkpoint(tmp_path / "target.ckpt")
    first.save_pretrained(tmp_path / "target")
    for name in ("target.ckpt", "target"):
        second = tiny_recommender(data, initial_weights=TargetWeights(str(tmp_path / name)), dropout=0.1)
        assert second.fingerprint() == first.fingerprint()
    start = TargetWeights(str(tmp_path / "target.ckpt"))
    other = tiny_data(separator=False)
    with pytest.raises(InputError, match=r"the initial target .*target\.ckpt"):
        tiny_recommender(other, initial_weights=start)
    deeper = tiny_backbone(num_hidden_layers=3)
    with pytest.raises(InputError, match=r"target\.ckpt: expected a target with the weights of `backbone`"):
        tiny_recommender(data, initial_weights=start, backbone=deeper)
