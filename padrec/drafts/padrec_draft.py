"""Training PAD-Rec, and HASS and EAGLE as PAD-Rec without some of its parts."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Annotated

import torch
from torch import Tensor, nn

from padrec.catalog import (
    Catalog,
    CatalogTrie,
    InputError,
    NonNegativeFloat,
    NonNegativeInt,
    NonZeroShare,
    PositiveFloat,
    PositiveInt,
    Range,
    Seed,
    SemanticIDVocabulary,
    check_arguments,
)
from padrec.data.batches import PromptBatch, SequenceBatch
from padrec.decoding import (
    DecodingSession,
    DynamicTree,
    ListRequest,
    Prompts,
    Recommendations,
    SpeculativeDecoder,
    TreeExpansion,
    check_length,
)
from padrec.drafts.atspeed import CodeChoices, DistillationObjective, nodes_before
from padrec.drafts.context_alignment import Window, unroll
from padrec.drafts.draft_architecture import EAGLE, DraftArchitecture
from padrec.drafts.draft_checkpoint import DraftWeights
from padrec.drafts.draft_module import DraftModule
from padrec.drafts.feature_draft import NetworkDraft
from padrec.drafts.objective import DraftObjective, agreement_by_slot
from padrec.drafts.position_aware import PAD_REC, PositionAware
from padrec.metrics import AcceptanceLength
from padrec.targets import in_step_precision
from padrec.targets.named_users import named_users
from padrec.training import picked, rows_of

# Each step attends to the columns of all before it, so memory grows with the square of the steps.
_MOST_STEPS = 32

# From the embeddings `[B, T, d]` and the target's features `[B, T, k d]` to what each draft step predicts for the
# supervised tokens, `[M, d]`, and where it can, bool `[M]`.
Unrolling = Callable[[Tensor, Tensor], Iterator[tuple[Tensor, Tensor]]]


class PADRecDraft(DraftModule):
    """Trains a feature draft against a frozen target.

    The draft is unrolled over `unrolled_steps` draft steps with context alignment; the target's features are computed
    on the fly. Without the position-aware part this is HASS; with only one unrolled step, too, it is EAGLE. Validation
    decodes speculatively and reports the acceptance length.

    Args:
        target: checkpoint or folder of the target.
        vocabulary: the tokens; linked from the datamodule.
        catalog: the items, for validation; linked from the datamodule.
        list_length: K, items in a validation list; linked from the datamodule.
        architecture: what the draft's network is made of; None is `EAGLE()`.
        position_aware: what the draft is told about slots and draft steps; null for nothing.
        unrolled_steps: T, from 1 to 32; 2 or more with step embeddings.
        through_steps: pass gradients through the draft's own predictions, see `unroll`.
        step_weight: λ in the loss Σ λ^s L_s over the steps s = 0 … T-1, in (0, 1].
        feature_weight: see `DraftObjective`.
        soft_weight: see `DraftObjective`.
        top_k_weight: see `DraftObjective`.
        top_k: see `DraftObjective`.
        distillation: a further loss, of the codes that the catalog allows where it leaves a choice, such as
            `LogAcceptance`; None for none.
        feature_noise: half-width of uniform noise on the target's features in training.
        learning_rate: peak learning rate.
        weight_decay: for matrices other than embeddings.
        warmup_steps: optimiser steps until the peak; cosine decay to zero follows.
        initial_weights: weights of another draft to start from; None draws them at random. A new position-aware part is
            the identity, so PAD-Rec can start exactly where EAGLE or HASS ended.
        compile: compile the target's layers, which compute the features; see `CompiledLayers`.
        seed: for the noise.

    Raises:
        InputError: the target or the initial draft cannot be read or does not fit, or a value is out of range.
    """

    def __init__(
        self,
        target: str,
        vocabulary: SemanticIDVocabulary,
        catalog: Catalog | None = None,
        list_length: PositiveInt = 10,
        architecture: DraftArchitecture | None = None,
        position_aware: PositionAware | None = PAD_REC,
        unrolled_steps: Annotated[int, Range(f"1 … {_MOST_STEPS}", lambda steps: 1 <= steps <= _MOST_STEPS)] = 4,
        through_steps: bool = False,
        step_weight: NonZeroShare = 1.0,
        feature_weight: NonNegativeFloat = 1.0,
        soft_weight: NonNegativeFloat = 0.1,
        top_k_weight: NonNegativeFloat = 0.0,
        top_k: PositiveInt = 10,
        distillation: DistillationObjective | None = None,
        feature_noise: NonNegativeFloat = 0.0,
        learning_rate: PositiveFloat = 1e-3,
        weight_decay: NonNegativeFloat = 0.0,
        warmup_steps: NonNegativeInt = 100,
        initial_weights: DraftWeights | None = None,
        compile: bool = False,
        seed: Seed = 0,
    ) -> None:
        check_arguments(PADRecDraft, locals())
        optimisation = {"learning_rate": learning_rate, "weight_decay": weight_decay, "warmup_steps": warmup_steps}
        super().__init__(target, vocabulary, catalog, list_length, compile, seed=seed, **optimisation)
        # Not the target and the objects: a checkpoint's would silently override the config's.
        linked = ["vocabulary", "catalog", "list_length", "prompt_format"]
        self.save_hyperparameters(ignore=["target", "architecture", "distillation", "initial_weights", *linked])
        self.hparams["position_aware"] = None if position_aware is None else asdict(position_aware)
        self.starts_random = initial_weights is None
        architecture = architecture or EAGLE()
        self.settings = {
            "n_slot_states": vocabulary.n_slot_states,
            "n_steps": unrolled_steps,
            "position_aware": self.hparams["position_aware"],
        }
        self.network = architecture.network(self.target.model.config, **self.settings)
        self.settings["architecture"] = architecture.description
        if initial_weights is not None:
            initial_weights.load_into(self.network, self.target.fingerprint, vocabulary)
        self.objective = DraftObjective(feature_weight, soft_weight, top_k_weight, top_k)
        self.distillation = distillation
        self._trie: CatalogTrie | None = None
        if distillation is not None:
            if catalog is None:
                raise InputError("distillation needs the catalog: pass `catalog`, or link it from the datamodule")
            self._trie = CatalogTrie(catalog, vocabulary)
        elif self.objective.is_empty:
            raise InputError("the weights of all losses are 0, expected one above 0, or a distillation")
        self._step_weights = [step_weight**step for step in range(unrolled_steps)]
        self._noise, self._through_steps = feature_noise, through_steps
        self.validation_acceptance = AcceptanceLength()
        self._expansion: TreeExpansion = DynamicTree()
        self._session: DecodingSession[Recommendations] | None = None  # during a validation

    def metric_names(self) -> set[str]:
        """See `TrainableModule`."""
        steps = range(1, len(self._step_weights) + 1)
        by_step = {f"train/{name}_step_{step}" for name in ("loss", "agreement") for step in steps}
        by_slot = {f"train/agreement_slot_{slot}" for slot in range(self.vocabulary.item_length)}
        return super().metric_names() | by_step | by_slot | {"val/acceptance_length"}

    def undecayed_modules(self) -> list[nn.Module]:
        """Embeddings and the position-aware part, which decay would pull back to the base draft."""
        return [*super().undecayed_modules(), self.network.position_aware]

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """The mean objective of the supervised tokens, averaged over draft steps by their weights."""
        # Position t reads token t + 1 with the feature of token t. It predicts the feature of token t + 1, from which
        # the head predicts token t + 2, the supervised one.
        check_length(self.target.model.config, batch.tokens.shape[1])
        batch = _at_least_three_wide(batch)
        rows = rows_of(batch.supervised[:, 2:])  # [M]
        unrolled = self._unrolling(batch, rows)
        with torch.no_grad():
            last, features = self.target.features(batch.tokens, self.network.feature_layers)
            embeddings = self.target.embed(batch.tokens[:, 1:-1])
            wanted = picked(last[:, 1:-1], rows)  # [M, d]
            target_logits = self.target.logits(wanted)  # [M, V]
            noise = (torch.rand_like(features) * 2 - 1) * self._noise
            nodes = self._nodes(batch, rows)
        slots, losses = picked(batch.slots[:, 2:], rows), []
        for step, (ours, valid) in enumerate(unrolled(embeddings, (features + noise)[:, :-2])):
            logits = self.target.logits(ours)
            loss = self.objective(ours, wanted, logits, target_logits)
            if nodes is not None:
                loss = loss + self._distilled(logits, target_logits, nodes)
            total = (loss * valid).sum()
            losses.append(self.mean_over_tokens(total, valid.sum()))
            if self.logs_are_due():
                counts = agreement_by_slot(logits, target_logits, slots, valid, self.vocabulary.n_slot_states)
                self._log_agreement(counts, step)
        return self._weighted(losses, len(batch.tokens))

    def _unrolling(self, batch: SequenceBatch, rows: Tensor) -> Unrolling:
        """Prepare what synchronises the device while little is pending; see `rows_of`."""
        n_steps, supervised = len(self._step_weights), batch.supervised[:, 2:]
        window = Window.around(supervised, n_steps)
        positions, places = rows % supervised.shape[1], window.places(rows)

        def unrolled(embeddings: Tensor, features: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
            slots = batch.slots[:, 1:-1]
            steps = unroll(self.network, embeddings, features, slots, n_steps, window, self._through_steps)
            for step, predicted in enumerate(steps):
                # No draft gets to earlier positions in this step.
                yield picked(predicted, places if step else rows), positions >= step

        return unrolled

    def _nodes(self, batch: SequenceBatch, rows: Tensor) -> Tensor | None:
        """The trie nodes before the supervised tokens, int64 `[M]`; the sink where the catalog leaves no choice."""
        if self._trie is None:
            return None
        trie = self._trie.to(self.device)
        is_code = picked(batch.slots[:, 2:], rows) < trie.n_slots
        nodes = picked(nodes_before(trie, batch.tokens, batch.slots)[:, 2:], rows)
        return torch.where(is_code & (trie.n_children(nodes) > 1), nodes, trie.sink)

    def _distilled(self, logits: Tensor, target_logits: Tensor, nodes: Tensor) -> Tensor:
        """The distillation loss of each token, `[M]`; 0 where the catalog leaves no choice."""
        assert self.distillation is not None
        assert self._trie is not None
        choices = CodeChoices.of(logits.float(), target_logits.float(), nodes, torch.zeros_like(nodes), self._trie)
        return torch.where(nodes != self._trie.sink, self.distillation(choices), 0.0)

    def _weighted(self, losses: list[Tensor], batch_size: int) -> Tensor:
        """The weighted mean of the steps' losses; logs all of them."""
        loss = torch.stack([w * loss for w, loss in zip(self._step_weights, losses, strict=True)]).sum()
        loss = loss / sum(self._step_weights)
        self.log("train/loss", loss, prog_bar=True, sync_dist=True, batch_size=batch_size)
        if self.logs_are_due():
            for step, value in enumerate(losses, start=1):
                self.log(f"train/loss_step_{step}", value, sync_dist=True, batch_size=batch_size)
        return loss

    def _log_agreement(self, counts: Tensor, step: int) -> None:
        counts = torch.as_tensor(self.trainer.strategy.reduce(counts, reduce_op="sum"))  # over all processes
        agrees, tokens = counts.sum(1)
        self.log(f"train/agreement_step_{step + 1}", agrees / tokens.clamp(min=1))
        if step > 0:
            return
        for slot in range(self.vocabulary.item_length):
            self.log(f"train/agreement_slot_{slot}", counts[0, slot] / counts[1, slot].clamp(min=1))

    def validation_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Decode greedily with the draft and log its acceptance length τ."""
        counted = batch.rows(batch.counted)
        if len(counted.tokens) > 0:
            prompts = Prompts(counted.tokens, counted.slots, counted.lengths)
            self._session = self._session or self._new_session()
            with named_users(self, counted):
                _, trace = self._session.decode(prompts, torch.Generator().manual_seed(batch_idx))
            self.validation_acceptance.update(trace.tokens.to(self.device), trace.target_passes.to(self.device))
        # Every process logs, even without users: all take part in the reduction.
        self.log("val/acceptance_length", self.validation_acceptance, prog_bar=True, on_step=False, on_epoch=True)

    def _new_session(self) -> DecodingSession[Recommendations]:
        if self.catalog is None:
            raise InputError("validation lists need the catalog: pass `catalog`, or link it from the datamodule")
        request = ListRequest.build(self.catalog, self.vocabulary, self.list_length, device=self.device)
        network = in_step_precision(self.network, self.device.type)
        decoder = SpeculativeDecoder(NetworkDraft(network, self.vocabulary), self._expansion)
        return decoder.bind(self.target_runner(), request)

    def on_validation_end(self) -> None:
        """Drop the session: it holds joined weights, which training changes."""
        self._session = None


def _at_least_three_wide(batch: SequenceBatch) -> SequenceBatch:
    """Pad rows of at most one code: nothing can be predicted, but all processes must take the step."""
    missing = max(0, 3 - batch.tokens.shape[1])
    tokens, slots, supervised, items = (
        nn.functional.pad(values, (0, missing)) for values in (batch.tokens, batch.slots, batch.supervised, batch.items)
    )
    return SequenceBatch(tokens, slots, batch.lengths, supervised, items)
