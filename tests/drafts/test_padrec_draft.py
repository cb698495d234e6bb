from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from padrec.catalog import InputError
from padrec.data import PromptBatch, SemanticIDDataModule, SequenceBatch
from padrec.decoding import DynamicTree, ListRequest, Prompts, SpeculativeDecoder, TransformersRunner
from padrec.drafts import (
    EAGLE,
    EAGLE3,
    DraftArchitecture,
    DraftObjective,
    LogAcceptance,
    NetworkDraft,
    PADRecDraft,
    PositionAware,
    agreement_by_slot,
)
from padrec.drafts.position_aware import PAD_REC
from padrec.metrics import AcceptanceLength
from padrec.targets import TargetRecommender, to_precision
from tests.drafts.reference_drafting import randomise, simulated_drafting
from tests.reference import forward
from tests.stubs import CountedCompiler
from tests.tiny_training import (
    first_prompts,
    fitted,
    quiet_trainer,
    sequence_batch,
    tiny_data,
    tiny_draft,
    tiny_recommender,
    validated_acceptance,
)


def mixed_batch(data: SemanticIDDataModule) -> SequenceBatch:
    """Rows of different lengths; of one, as of a generated list, only the end is supervised, of another nothing."""
    batches: list[SequenceBatch] = list(data.train_dataloader())
    batch = max(batches, key=lambda batch: int(batch.lengths.max() - batch.lengths.min()))
    assert int(batch.lengths.max()) > int(batch.lengths.min())
    batch.supervised[0, :6] = False
    batch.supervised[1] = False
    return batch


class Predictions:
    """What the draft predicts for every supervised token of a batch at one step, and what the target has there."""

    def __init__(self, draft: PADRecDraft, batch: SequenceBatch, step: int) -> None:
        rows: list[tuple[Tensor, Tensor, Tensor]] = []  # f̂, f and slot
        embedding = draft.target.model.get_input_embeddings()
        for row in range(len(batch.tokens)):
            tokens = batch.tokens[row, : batch.lengths[row]]
            _, features = forward(draft.target.model, tokens.tolist())
            embeddings, slots = embedding(tokens[1:]), batch.slots[row, 1 : len(tokens)]
            for position in range(step, len(tokens) - 2):
                if batch.supervised[row, position + 2]:
                    ours = simulated_drafting(draft.network, embeddings, features, slots, position, step)
                    rows.append((ours, features[position + 1], batch.slots[row, position + 2]))
        self.ours, self.wanted, self.slots = (torch.stack(values) for values in zip(*rows, strict=True))
        head = draft.target.model.get_output_embeddings()
        self.logits, self.target_logits = head(self.ours), head(self.wanted)


@pytest.mark.parametrize("step_weight", [1.0, 0.5])
def test_loss_is_that_of_drafting_with_own_predictions(
    step_weight: float, data: SemanticIDDataModule, target_folder: Path, tmp_path: Path
) -> None:
    draft = tiny_draft(data, target_folder, step_weight=step_weight, soft_weight=0.4, top_k_weight=0.2, top_k=3)
    randomise(draft.network)
    batch = mixed_batch(data)
    objective = DraftObjective(1.0, 0.4, 0.2, 3)
    with torch.no_grad():
        expected = [Predictions(draft.eval(), batch, step) for step in range(3)]
        losses = [float(objective(p.ours, p.wanted, p.logits, p.target_logits).mean()) for p in expected]
    logged = fitted(draft, tmp_path, [batch]).callback_metrics
    for number, loss in enumerate(losses, start=1):
        assert float(logged[f"train/loss_step_{number}"]) == pytest.approx(loss, rel=1e-4)
    weights = [step_weight**step for step in range(3)]
    total = sum(weight * loss for weight, loss in zip(weights, losses, strict=True)) / sum(weights)
    assert float(logged["train/loss"]) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("architecture", [EAGLE(), EAGLE3(feature_layers=(0, 1, -1))], ids=["one layer", "several"])
def test_a_compiled_target_has_the_same_features(
    architecture: DraftArchitecture,
    data: SemanticIDDataModule,
    target_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiler = CountedCompiler()
    monkeypatch.setattr(torch, "compile", compiler)
    batch, losses = mixed_batch(data), []
    for compile in (False, True):
        draft = tiny_draft(data, target_folder, architecture=architecture, compile=compile)
        losses.append(float(fitted(draft, tmp_path / str(compile), [batch]).callback_metrics["train/loss"]))
        assert compiler.calls == compile * draft.target.model.config.num_hidden_layers
    assert losses[0] == losses[1]


def test_agreement_is_logged_by_slot_and_by_step(
    data: SemanticIDDataModule, target_folder: Path, tmp_path: Path
) -> None:
    draft = tiny_draft(data, target_folder)
    batch = mixed_batch(data)
    with torch.no_grad():
        expected = [Predictions(draft.eval(), batch, step) for step in range(3)]
    counts = [agreement_by_slot(p.logits, p.target_logits, p.slots, p.slots >= 0, 5) for p in expected]
    logged = fitted(draft, tmp_path, [batch]).callback_metrics
    for number, by_slot in enumerate(counts, start=1):
        agrees, tokens = by_slot.sum(1).tolist()
        assert float(logged[f"train/agreement_step_{number}"]) == pytest.approx(agrees / tokens)
    for slot in range(4):
        agrees, tokens = counts[0][:, slot].tolist()
        assert float(logged[f"train/agreement_slot_{slot}"]) == pytest.approx(agrees / tokens)


@pytest.mark.parametrize("separator", [True, False])
def test_rows_without_supervision_have_no_loss(separator: bool, tmp_path: Path) -> None:
    data = tiny_data(separator=separator)
    tiny_recommender(data).save_pretrained(tmp_path / "target")
    draft = tiny_draft(data, tmp_path / "target")
    before = {name: weight.clone() for name, weight in draft.network.state_dict().items()}
    whole = next(iter(data.train_dataloader()))
    whole.supervised[:] = False
    lone_bos = sequence_batch(torch.tensor([[1]]), data.vocabulary)
    one_code = sequence_batch(torch.tensor([[1, 4]]), data.vocabulary)
    for batch in (whole, lone_bos, one_code):
        logged = fitted(draft, tmp_path, [batch]).callback_metrics
        assert float(logged["train/loss"]) == 0.0
        assert not any(value.isnan() for value in logged.values())
        torch.testing.assert_close(dict(draft.network.state_dict()), before, rtol=0, atol=0)


class GradientRecorder(Callback):
    """Names of the parameters that got a gradient, and of the modules in training mode."""

    def __init__(self) -> None:
        self.with_gradient: set[str] = set()
        self.training: set[str] = set()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        named = pl_module.named_parameters()
        self.with_gradient |= {name for name, p in named if p.grad is not None and bool((p.grad != 0).any())}
        self.training |= {name for name, module in pl_module.named_modules() if module.training}


def test_only_the_network_trains(data: SemanticIDDataModule, target_folder: Path, tmp_path: Path) -> None:
    draft = tiny_draft(data, target_folder)
    before = {name: weight.clone() for name, weight in draft.target.model.state_dict().items()}
    recorder = GradientRecorder()
    batches = list(data.train_dataloader())[:2]
    trainer = fitted(draft, tmp_path, batches, callbacks=[recorder])
    assert recorder.with_gradient == {f"network.{name}" for name, _ in draft.network.named_parameters()}
    assert "network.layer" in recorder.training
    assert not any(name.startswith("target") for name in recorder.training)
    torch.testing.assert_close(dict(draft.target.model.state_dict()), before, rtol=0, atol=0)
    optimised = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert optimised == {id(p) for p in draft.network.parameters()}


def test_the_position_aware_part_is_never_decayed(
    data: SemanticIDDataModule, target_folder: Path, tmp_path: Path
) -> None:
    draft = tiny_draft(data, target_folder, weight_decay=0.2)
    trainer = fitted(draft, tmp_path, [next(iter(data.train_dataloader()))])
    decay = {id(p): group["weight_decay"] for group in trainer.optimizers[0].param_groups for p in group["params"]}
    for name, parameter in draft.network.named_parameters():
        matrix = parameter.ndim == 2 and not name.startswith("position_aware")
        assert decay[id(parameter)] == (0.2 if matrix else 0.0), name


@pytest.mark.parametrize(
    ("flavour", "without"),
    [
        ({"position_aware": None}, ("slot_", "step_", "gate")),
        ({"position_aware": None, "unrolled_steps": 1}, ("slot_", "step_", "gate")),
        ({"position_aware": PositionAware(slots=None)}, ("slot_",)),
        ({"position_aware": PositionAware(steps=None)}, ("step_", "gate")),
    ],
)
def test_hass_and_eagle_are_the_same_module_with_parts_switched_off(
    flavour: dict[str, Any],
    without: tuple[str, ...],
    data: SemanticIDDataModule,
    target_folder: Path,
    tmp_path: Path,
) -> None:
    draft = tiny_draft(data, target_folder, **flavour)
    names = {name.removeprefix("position_aware.") for name in draft.network.state_dict() if "position" in name}
    assert not any(name.startswith(without) for name in names)
    logged = fitted(draft, tmp_path, [next(iter(data.train_dataloader()))]).callback_metrics
    n_steps = flavour.get("unrolled_steps", 3)
    assert {name for name in logged if "loss_step" in name} == {f"train/loss_step_{n + 1}" for n in range(n_steps)}


def test_feature_noise_disturbs_the_targets_features(
    data: SemanticIDDataModule, target_folder: Path, tmp_path: Path
) -> None:
    batch = next(iter(data.train_dataloader()))

    def first_loss(**arguments: Any) -> float:
        logged = fitted(tiny_draft(data, target_folder, **arguments), tmp_path, [batch]).callback_metrics
        return float(logged["train/loss_step_1"])

    assert first_loss(feature_noise=0.0) == first_loss(feature_noise=0.0, seed=1)
    assert first_loss(feature_noise=0.5) != first_loss()
    assert abs(first_loss(feature_noise=1e-4) - first_loss()) < 1e-3


def test_checkpoints_hold_the_draft_only_and_load_strictly(data: SemanticIDDataModule, target_folder: Path) -> None:
    draft = tiny_draft(data, target_folder)
    randomise(draft.network)
    state = draft.state_dict()
    assert set(state) == {f"network.{name}" for name in draft.network.state_dict()}
    other = tiny_draft(data, target_folder, init_seed=1)
    other.load_state_dict(state)
    torch.testing.assert_close(dict(other.network.state_dict()), dict(draft.network.state_dict()), rtol=0, atol=0)
    lacking = {name: weight for name, weight in state.items() if name != "network.fusion.bias"}
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "network\.fusion\.bias"'):
        other.load_state_dict(lacking)
    hass = tiny_draft(data, target_folder, position_aware=None)
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\) in state_dict"):
        hass.load_state_dict(state)


def saved_draft(data: SemanticIDDataModule, target_folder: Path, folder: Path) -> PADRecDraft:
    draft = tiny_draft(data, target_folder)
    fitted(draft, folder, [next(iter(data.train_dataloader()))]).save_checkpoint(folder / "draft.ckpt")
    return draft


def test_hyperparameters_are_primitives_and_leave_the_target_to_the_config(
    data: SemanticIDDataModule, target_folder: Path, tmp_path: Path
) -> None:
    saved_draft(data, target_folder, tmp_path)
    checkpoint = torch.load(tmp_path / "draft.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["unrolled_steps"] == 3
    assert (
        checkpoint["hyper_parameters"]["position_aware"] == checkpoint["settings"]["position_aware"] == asdict(PAD_REC)
    )
    # The command line lets a checkpoint's hyperparameters win: another target would silently not be used.
    assert not {"target", "vocabulary", "catalog", "list_length"} & set(checkpoint["hyper_parameters"])


def test_resuming_with_another_target_is_refused(
    data: SemanticIDDataModule, target_folder: Path, tmp_path: Path
) -> None:
    first = saved_draft(data, target_folder, tmp_path)
    tiny_recommender(data, init_seed=1).save_pretrained(tmp_path / "other")
    other = tiny_draft(data, tmp_path / "other")
    with pytest.raises(InputError) as caught:
        quiet_trainer(tmp_path, max_steps=2).fit(other, datamodule=data, ckpt_path=tmp_path / "draft.ckpt")
    assert first.target.fingerprint in str(caught.value)
    assert other.target.fingerprint in str(caught.value)


def test_resuming_a_target_as_a_draft_is_refused(
    data: SemanticIDDataModule, target_folder: Path, tmp_path: Path
) -> None:
    trainer = quiet_trainer(tmp_path)
    trainer.strategy.connect(tiny_recommender(data))
    trainer.save_checkpoint(tmp_path / "target.ckpt")
    with pytest.raises(InputError, match="a checkpoint of kind 'target', expected 'draft'"):
        quiet_trainer(tmp_path, max_steps=2).fit(
            tiny_draft(data, target_folder), datamodule=data, ckpt_path=tmp_path / "target.ckpt"
        )


def test_a_target_of_another_vocabulary_is_refused(target_folder: Path) -> None:
    other = tiny_data(separator=False)
    with pytest.raises(InputError) as caught:
        tiny_draft(other, target_folder)
    assert str(other.vocabulary) in str(caught.value)
    assert str(TargetRecommender.load(target_folder).vocabulary) in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unrolled_steps": 300}, "unrolled_steps is 300, expected 1 … 32"),
        ({"step_weight": 0.0}, "step_weight is 0.0"),
        ({"step_weight": 1.5}, "step_weight is 1.5"),
        ({"unrolled_steps": 1}, "expected at least 2 unrolled steps"),
        ({"feature_weight": 0.0, "soft_weight": 0.0}, "expected one above 0, or a distillation"),
        ({"distillation": LogAcceptance(), "catalog": None}, "distillation needs the catalog"),
    ],
)
def test_training_that_cannot_work_is_refused(
    arguments: dict[str, Any], message: str, data: SemanticIDDataModule, target_folder: Path
) -> None:
    with pytest.raises(InputError, match=message):
        tiny_draft(data, target_folder, **arguments)


def target_lists(target: TargetRecommender, prompts: PromptBatch) -> SequenceBatch:
    """The target's greedy lists after their prompts, all of one length, only the lists supervised."""
    assert prompts.lengths.unique().numel() == 1
    with torch.no_grad():
        lists = target.eval().predict_step(prompts, 0).tokens
    tokens = torch.cat([prompts.tokens, lists], 1)
    return sequence_batch(tokens, target.vocabulary, supervised_from=prompts.tokens.shape[1] + 1)


@pytest.mark.parametrize("shared_codes", [False, True])
def test_a_draft_learns_the_lists_of_its_target(shared_codes: bool, tmp_path: Path) -> None:
    data = tiny_data(list_length=10, max_users=4, shared_codes=shared_codes)
    target = tiny_recommender(data, init_seed=2)
    target.save_pretrained(tmp_path / "target")
    draft = tiny_draft(data, tmp_path / "target", learning_rate=0.02, soft_weight=1.0)

    def loss() -> float:
        batch = target_lists(target, first_prompts(data))
        with torch.no_grad():
            p = Predictions(draft.eval(), batch, 2)
            return float(DraftObjective(1.0, 1.0)(p.ours, p.wanted, p.logits, p.target_logits).mean())

    untrained, loss_before = validated_acceptance(draft, data, tmp_path), loss()
    batch = target_lists(target, first_prompts(data))
    fitted(draft, tmp_path, [batch] * 100, limit_val_batches=0)
    assert loss() < 0.6 * loss_before
    assert validated_acceptance(draft, data, tmp_path) > untrained + 0.5


def test_validation_decodes_in_the_precision_of_the_training_steps(
    data: SemanticIDDataModule, target_folder: Path, tmp_path: Path
) -> None:
    draft = tiny_draft(data, target_folder)
    randomise(draft.network)
    found = validated_acceptance(draft, data, tmp_path, precision="bf16-mixed")
    model, network = deepcopy(draft.target.model), deepcopy(draft.network).eval()
    to_precision(model, torch.bfloat16)
    to_precision(network, torch.bfloat16)
    runner, decoder = (
        TransformersRunner(model),
        SpeculativeDecoder(NetworkDraft(network, data.vocabulary), DynamicTree()),
    )
    request = ListRequest.build(data.catalog, data.vocabulary, data.list_length)
    metric = AcceptanceLength()
    for batch in data.val_dataloader():
        prompts = Prompts(batch.tokens, batch.slots, batch.lengths)
        _, trace = decoder.bind(runner, request).decode(prompts, torch.Generator())
        metric.update(trace.tokens, trace.target_passes)
    assert found == pytest.approx(float(metric.compute()))
    assert {weight.dtype for weight in draft.network.parameters()} == {torch.float32}


def test_validation_needs_the_catalog(data: SemanticIDDataModule, target_folder: Path) -> None:
    draft = tiny_draft(data, target_folder, catalog=None)
    with pytest.raises(InputError, match="validation lists need the catalog"):
        draft.validation_step(first_prompts(data), 0)
