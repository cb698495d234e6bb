"""Training of PAD-Rec, and with parts switched off of HASS and EAGLE."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from padrec.catalog import Catalog, InputError, SemanticIDVocabulary
from padrec.data.batches import PromptBatch, SequenceBatch
from padrec.decoding import (
    DecodingSession,
    DynamicTree,
    ListRequest,
    Prompts,
    Recommendations,
    SpeculativeDecoder,
    TransformersRunner,
)
from padrec.drafts.context_alignment import Window, unroll
from padrec.drafts.draft_checkpoint import DraftCheckpoint, DraftWeights, check_target
from padrec.drafts.feature_draft import NetworkDraft
from padrec.drafts.feature_draft_network import FeatureDraftNetwork
from padrec.drafts.objective import DraftObjective, agreement_by_slot
from padrec.metrics import AcceptanceLength
from padrec.targets import FrozenTarget, TargetRecommender, in_step_precision
from padrec.training import TrainableModule, picked, rows_of, stored_vocabulary


class PADRecDraft(TrainableModule):
    """Trains a feature draft against a frozen target.

    The draft is unrolled over `unrolled_steps` draft steps with context alignment; the target's features are computed
    on the fly. Without both embeddings this is HASS; with one unrolled step as well it is EAGLE. Validation decodes
    speculatively and reports the acceptance length.

    Args:
        target: checkpoint or folder of the target.
        vocabulary: the tokens; linked from the datamodule.
        catalog: the items, for validation; linked from the datamodule.
        list_length: K, items in a validation list; linked from the datamodule.
        slot_embeddings: whether the draft knows a token's slot inside its item.
        step_embeddings: whether the draft knows its draft step.
        unrolled_steps: T, at least 1; 2 or more for step embeddings.
        step_weight: λ in the loss Σ λ^s L_s over the steps s = 0 … T-1, in (0, 1].
        feature_weight: see `DraftObjective`.
        soft_weight: see `DraftObjective`.
        top_k_weight: see `DraftObjective`.
        top_k: see `DraftObjective`.
        feature_noise: half-width of uniform noise on the target's features in training.
        learning_rate: peak learning rate.
        weight_decay: of matrices other than embeddings.
        warmup_steps: optimiser steps until the peak; cosine decay to zero follows.
        initial_weights: those of another draft to start from; None draws them at random. The position-aware part is the
            identity at first, so that PAD-Rec can start exactly where EAGLE or HASS ended.
        compile: compile the target's layers, which compute the features; see `CompiledLayers`.
        seed: of the noise.

    Raises:
        InputError: the target or the initial draft cannot be read or belong elsewhere, or a value is outside its
            range.
    """

    def __init__(
        self,
        target: str,
        vocabulary: SemanticIDVocabulary,
        catalog: Catalog | None = None,
        list_length: int = 10,
        slot_embeddings: bool = True,
        step_embeddings: bool = True,
        unrolled_steps: int = 4,
        step_weight: float = 1.0,
        feature_weight: float = 1.0,
        soft_weight: float = 0.1,
        top_k_weight: float = 0.0,
        top_k: int = 10,
        feature_noise: float = 0.0,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        warmup_steps: int = 100,
        initial_weights: DraftWeights | None = None,
        compile: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, warmup_steps=warmup_steps, seed=seed)
        if unrolled_steps < 1 or not 0 < step_weight <= 1 or feature_noise < 0:
            raise InputError(
                f"unrolled_steps {unrolled_steps}, step_weight {step_weight}, feature_noise {feature_noise}: "
                "expected at least 1 step, a weight in (0, 1] and noise of at least 0"
            )
        # The target is not saved: a checkpoint's path would silently override the config's.
        self.save_hyperparameters(ignore=["target", "vocabulary", "catalog", "list_length", "initial_weights"])
        self.vocabulary = vocabulary
        self.catalog = catalog
        self.list_length = list_length
        recommender = TargetRecommender.load(target)
        vocabulary.check_same(recommender.vocabulary, f"the target {target}")
        self.target = FrozenTarget(recommender.backbone, recommender.fingerprint(), compile)
        self.settings = {
            "n_slot_states": vocabulary.n_slot_states,
            "n_steps": unrolled_steps,
            "slot_embeddings": slot_embeddings,
            "step_embeddings": step_embeddings,
        }
        self.network = FeatureDraftNetwork(recommender.backbone.config, **self.settings)  # type: ignore[arg-type]
        if initial_weights is not None:
            initial_weights.load_into(self.network, self.target.fingerprint, vocabulary)
        self.objective = DraftObjective(feature_weight, soft_weight, top_k_weight, top_k)
        self._step_weights = [step_weight**step for step in range(unrolled_steps)]
        self._noise = feature_noise
        self.validation_acceptance = AcceptanceLength()
        self._request: ListRequest | None = None
        self._decoding: DecodingSession[Recommendations] | None = None  # during a validation

    def trainable_module(self) -> nn.Module:
        """The draft's own network; the target is frozen."""
        return self.network

    def undecayed_modules(self) -> list[nn.Module]:
        """The position-aware part beside embeddings: decay would pull it back to the base draft."""
        return [*super().undecayed_modules(), self.network.position_aware]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that `FeatureDraft` can read; see `DraftCheckpoint.write`."""
        self.checkpoint().write(Path(folder))

    def checkpoint(self) -> DraftCheckpoint:
        """The draft as it stands."""
        return DraftCheckpoint(
            self.settings, self.network.state_dict(), self.target.fingerprint, self.vocabulary.to_dict()
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store what the draft was trained for."""
        checkpoint["kind"] = "draft"
        checkpoint["settings"] = self.settings
        checkpoint["target_fingerprint"] = self.target.fingerprint
        checkpoint["vocabulary"] = self.vocabulary.to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another target or vocabulary.

        Raises:
            InputError: they differ.
        """
        self.vocabulary.check_same(stored_vocabulary(checkpoint, "draft"), "the checkpoint")
        check_target(checkpoint["target_fingerprint"], self.target.fingerprint)

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """The weighted mean over draft steps of the objective's mean over supervised tokens."""
        # Position t reads the feature of token t and token t + 1, and predicts the feature of token t + 1, with which
        # the head predicts token t + 2: the supervised ones.
        batch = _at_least_three_wide(batch)
        supervised = batch.supervised[:, 2:]
        rows = rows_of(supervised)  # [M]
        window = Window.around(supervised, len(self._step_weights))
        with torch.no_grad():
            features = self.target(batch.tokens)
            embeddings = self.target.embed(batch.tokens[:, 1:-1])
            wanted = picked(features[:, 1:-1], rows)  # [M, d]
            target_logits = self.target.logits(wanted)  # [M, V]
            noise = (torch.rand_like(features) * 2 - 1) * self._noise
        inputs = (features + noise)[:, :-2]
        positions = rows % supervised.shape[1]
        slots = picked(batch.slots[:, 2:], rows)
        losses = []
        steps = unroll(self.network, embeddings, inputs, batch.slots[:, 1:-1], len(self._step_weights), window)
        places = window.places(rows)
        for step, predicted in enumerate(steps):
            ours = picked(predicted, places if step else rows)
            logits = self.target.logits(ours)
            valid = positions >= step  # before that, no draft can have come so far
            total = (self.objective(ours, wanted, logits, target_logits) * valid).sum()
            losses.append(self.mean_over_tokens(total, valid.sum()))
            if self.logs_are_due():
                n_slots = self.vocabulary.n_slot_states
                self._log_agreement(agreement_by_slot(logits, target_logits, slots, valid, n_slots), step)
        loss = torch.stack([w * loss for w, loss in zip(self._step_weights, losses, strict=True)]).sum()
        loss = loss / sum(self._step_weights)
        size = len(batch.tokens)
        self.log("train/loss", loss, prog_bar=True, sync_dist=True, batch_size=size)
        if self.logs_are_due():
            for step, value in enumerate(losses, start=1):
                self.log(f"train/loss_step_{step}", value, sync_dist=True, batch_size=size)
        return loss

    def _log_agreement(self, counts: Tensor, step: int) -> None:
        counts = torch.as_tensor(self.trainer.strategy.reduce(counts, reduce_op="sum"))  # over all processes
        agrees, tokens = counts.sum(1)
        self.log(f"train/agreement_step_{step + 1}", agrees / tokens.clamp(min=1))
        if step > 0:
            return
        for slot in range(self.vocabulary.n_slots + int(self.vocabulary.separator)):
            name = f"train/agreement_slot_{slot}"
            self.log(name, counts[0, slot] / counts[1, slot].clamp(min=1))

    def validation_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Decode greedily with the draft and log its acceptance length τ."""
        rows = batch.counted
        if bool(rows.any()):
            prompts = Prompts(batch.tokens[rows], batch.slots[rows], batch.lengths[rows])
            generator = torch.Generator().manual_seed(batch_idx)
            _, trace = self._validator().decode(prompts, generator)
            self.validation_acceptance.update(trace.tokens.to(self.device), trace.target_passes.to(self.device))
        # Logged by every process, one without users too: all take part in the reduction.
        self.log("val/acceptance_length", self.validation_acceptance, prog_bar=True, on_step=False, on_epoch=True)

    def _validator(self) -> DecodingSession[Recommendations]:
        if self._decoding is None:
            network = in_step_precision(self.network, self.device.type)
            decoder = SpeculativeDecoder(NetworkDraft(network, self.vocabulary), DynamicTree())
            model = in_step_precision(self.target.model, self.device.type)
            runner = TransformersRunner(model, self.target.fingerprint)
            self._decoding = decoder.bind(runner, self._list_request())
        return self._decoding

    def on_validation_end(self) -> None:
        """Give up what decoded the lists: it holds joined weights, which training changes."""
        self._decoding = None

    def _list_request(self) -> ListRequest:
        if self._request is None:
            if self.catalog is None:
                raise InputError("validation lists need the catalog: pass `catalog`, or link it from the datamodule")
            self._request = ListRequest.build(self.catalog, self.vocabulary, self.list_length, device=self.device)
        return self._request


def _at_least_three_wide(batch: SequenceBatch) -> SequenceBatch:
    """Pad rows of at most one code: they hold nothing to predict, but the step has to be taken with all processes."""
    missing = max(0, 3 - batch.tokens.shape[1])
    tokens, slots, supervised = (
        nn.functional.pad(values, (0, missing)) for values in (batch.tokens, batch.slots, batch.supervised)
    )
    return SequenceBatch(tokens, slots, batch.lengths, supervised)
