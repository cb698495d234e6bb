import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from torch import nn

from padrec.catalog import InputError
from padrec.data import SequenceBatch
from padrec.targets import TargetRecommender
from padrec.training import TrainableModule, picked, rows_of
from tests.tiny_training import fitted, quiet_trainer, sequence_batch, tiny_backbone, tiny_data, tiny_recommender


class RateRecorder(Callback):
    """Writes down the learning rate that every optimiser step uses, and may stop a fit that has no end."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.rates: list[float] = []
        self._stop_after = stop_after

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])
        trainer.should_stop = len(self.rates) == self._stop_after


def recorded_rates(tmp_path: Path, warmup_steps: int, stop_after: int | None = None, **arguments: Any) -> list[float]:
    data = tiny_data(batch_size=16)
    recorder = RateRecorder(stop_after)
    trainer = quiet_trainer(tmp_path, callbacks=[recorder], limit_val_batches=0, **arguments)
    trainer.fit(tiny_recommender(data, learning_rate=0.01, warmup_steps=warmup_steps), datamodule=data)
    return recorder.rates


@pytest.mark.parametrize("warmup_steps", [0, 1, 4])
def test_rate_warms_up_to_its_peak_and_falls_along_a_cosine(warmup_steps: int, tmp_path: Path) -> None:
    rates = recorded_rates(tmp_path, warmup_steps, max_steps=9)
    expected = [0.01 * (step + 1) / warmup_steps for step in range(warmup_steps)]
    decay = 9 - warmup_steps
    expected += [0.005 * (1 + math.cos(math.pi * step / decay)) for step in range(decay)]
    assert rates == pytest.approx(expected)
    assert max(rates) == 0.01


def test_epochs_tell_the_length_of_the_decay(tmp_path: Path) -> None:
    assert recorded_rates(tmp_path, 2, max_epochs=2) == recorded_rates(tmp_path, 2, max_steps=6)


def test_training_without_an_end_keeps_the_peak(tmp_path: Path) -> None:
    rates = recorded_rates(tmp_path, 2, stop_after=5, max_epochs=-1)
    assert rates == pytest.approx([0.005, 0.01, 0.01, 0.01, 0.01])


@pytest.mark.parametrize("tied", [False, True])
def test_only_matrices_are_decayed(tied: bool, tmp_path: Path) -> None:
    data = tiny_data()
    module = tiny_recommender(data, backbone=tiny_backbone("qwen3", tie_word_embeddings=tied), weight_decay=0.3)
    trainer = quiet_trainer(tmp_path, max_steps=1, limit_val_batches=0)
    trainer.fit(module, datamodule=data)
    decay = {id(p): group["weight_decay"] for group in trainer.optimizers[0].param_groups for p in group["params"]}
    for name, parameter in module.named_parameters():
        plain = "norm" in name or "embed_tokens" in name
        assert decay.pop(id(parameter)) == (0.0 if plain else 0.3), name
    assert not decay


class Noise(TrainableModule):
    """Writes down the noise of its training steps."""

    def __init__(self, seed: int) -> None:
        super().__init__(learning_rate=0.1, weight_decay=0.0, warmup_steps=0, seed=seed)
        self.layer = nn.Linear(1, 1)
        self.noise: list[float] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.noise.append(float(torch.rand(())))
        loss: torch.Tensor = self.layer(batch).sum()
        return loss


def test_noise_follows_from_seed_and_step_alone(tmp_path: Path) -> None:
    def noise(seed: int) -> list[float]:
        module = Noise(seed)
        loader = torch.utils.data.DataLoader(torch.ones(4, 1))  # type: ignore[arg-type, var-annotated]
        quiet_trainer(tmp_path, max_epochs=2).fit(module, loader)
        return module.noise

    first = noise(0)
    torch.rand(3)
    assert noise(0) == first
    assert len(set(first + noise(1))) == 16


def test_batches_of_one_step_draw_noise_of_their_own(tmp_path: Path) -> None:
    module = Noise(0)
    loader = torch.utils.data.DataLoader(torch.ones(6, 1))  # type: ignore[arg-type, var-annotated]
    quiet_trainer(tmp_path, max_epochs=2, accumulate_grad_batches=3).fit(module, loader)
    assert len(set(module.noise)) == 12


class RecordedGradients(TargetRecommender):
    """Writes down what the optimiser gets."""

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        super().on_before_optimizer_step(optimizer)
        self.gradient = torch.cat([p.grad.flatten() for p in self.parameters() if p.grad is not None])


def test_accumulated_batches_count_by_their_tokens(tmp_path: Path) -> None:
    data = tiny_data()
    tokens = torch.randint(data.vocabulary.size, (7, 12), generator=torch.Generator().manual_seed(0))
    whole = sequence_batch(tokens, data.vocabulary)
    parts = [whole.rows(torch.arange(7) < 1), whole.rows(torch.arange(7) >= 1)]
    parts[1].supervised[3:, 5:] = False  # of other lengths too
    whole = SequenceBatch(**{name: torch.cat([getattr(part, name) for part in parts]) for name in vars(whole)})
    gradients = []
    for batches in ([whole], parts):
        module = tiny_recommender(data, kind=RecordedGradients)
        fitted(module, tmp_path, batches, accumulate_grad_batches=len(batches))
        gradients.append(module.gradient)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("every", [1, 50])
def test_a_fit_that_diverges_ends_with_an_error_and_leaves_no_such_checkpoint(every: int, tmp_path: Path) -> None:
    data = tiny_data()
    saved = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1)
    trainer = quiet_trainer(
        tmp_path, max_epochs=2, log_every_n_steps=every, callbacks=[saved], enable_checkpointing=True
    )
    with pytest.raises(InputError, match=r"the training loss is not finite by step \d+: .* lower learning_rate"):
        trainer.fit(tiny_recommender(data, learning_rate=1e30, warmup_steps=0), datamodule=data)
    for path in tmp_path.glob("*.ckpt"):
        weights = torch.load(path, weights_only=True)["state_dict"]
        assert all(bool(weight.isfinite().all()) for weight in weights.values())


def test_picked_rows_equal_indexing_by_the_mask() -> None:
    mask = torch.tensor([[True, False, True], [False, False, True]])
    values = torch.arange(12.0).view(2, 3, 2)
    rows = rows_of(mask)
    assert rows.tolist() == [0, 2, 5]
    assert torch.equal(picked(values, rows), values[mask])
    assert torch.equal(picked(mask, rows), mask[mask])


def test_a_mask_without_true_picks_nothing() -> None:
    rows = rows_of(torch.zeros(2, 3, dtype=torch.bool))
    assert picked(torch.ones(2, 3, 4), rows).shape == (0, 4)


def test_a_fit_has_a_row_in_tensorboards_hyperparameters(tmp_path: Path) -> None:
    data = tiny_data(batch_size=16)
    logger = TensorBoardLogger(tmp_path, default_hp_metric=False)
    trainer = quiet_trainer(tmp_path, logger=logger, max_epochs=2, log_every_n_steps=1)
    trainer.fit(tiny_recommender(data, learning_rate=0.01), datamodule=data)
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    session = plugin_data_pb2.HParamsPluginData()
    session.ParseFromString(events.summary_metadata["_hparams_/session_start_info"].plugin_data.content)
    assert session.session_start_info.hparams["learning_rate"].number_value == 0.01
    assert session.session_start_info.hparams["model"].string_value == "TargetRecommender"
    assert "_hparams_/experiment" not in events.summary_metadata
