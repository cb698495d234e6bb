"""Training AtSpeed: a small language model whose beam search runs ahead of the target's."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from padrec.catalog import (
    Catalog,
    CatalogTrie,
    ClosedUnitInterval,
    InputError,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
    SemanticIDVocabulary,
    check_arguments,
)
from padrec.data.batches import PromptBatch, SequenceBatch
from padrec.decoding import Prompts, TransformersRunner, check_length
from padrec.decoding.beam.beam_plan import SpeculativeBeamPlan
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.drafts.atspeed.branched_rows import BranchedRows
from padrec.drafts.atspeed.objectives import CodeChoices, DistillationObjective, prefix_nodes
from padrec.drafts.atspeed.prefix_search import PrefixSearch, contained
from padrec.drafts.draft_module import DraftModule
from padrec.metrics import Mean
from padrec.targets import build_backbone, in_step_precision
from padrec.targets.backbone import settings_of
from padrec.training import picked, rows_of

KIND = "language model draft"
# Its multiples are evenly spread between whole numbers.
_GOLDEN_RATIO = 0.6180339887498949


class AtSpeedDraft(DraftModule):
    """Trains a language model to search beams as a frozen target does (Lin et al., arXiv 2410.05165).

    The loss is (1 - α) CE + α L: CE is the cross-entropy of the logged items' codes, L the objective's mean over
    prefixes. A prompt of each row ends before a logged item drawn at random. The target's K best items after it are
    found by its own beam search, and both models read all of them beside the row, in one pass. L then covers their
    prefixes, or for `on_beams: false` those of the logged items; prefixes that the catalog continues with only one code
    teach nothing and are left out. Validation searches with both models and reports how many steps strict
    verification accepts.

    Args:
        target: checkpoint or folder of the target.
        vocabulary: the tokens; linked from the datamodule.
        catalog: the items; linked from the datamodule.
        backbone: the draft's transformers configuration, as that of `TargetRecommender`.
        objective: L, such as `TopKAlignment`.
        list_length: beams of the target in validation; linked from the datamodule.
        n_beams: K, beams of the target in training, at most the catalog's distinct semantic IDs.
        draft_width: N, prefixes of each length that the draft keeps in validation, at least `list_length`.
        objective_weight: α, in [0, 1].
        renormalise: see `BeamDecoder`; as the decoder that the draft is for.
        learning_rate: peak learning rate.
        weight_decay: for matrices other than embeddings.
        warmup_steps: optimiser steps until the peak; cosine decay to zero follows.
        compile: compile the target's layers, except for its searches; see `CompiledLayers`.
        seed: for the ends of prompts, and dropout.

    Raises:
        InputError: the target cannot be read or does not fit, or a value is out of range.
    """

    kind = KIND
    catalog: Catalog
    network: PreTrainedModel
    starts_random = True

    def __init__(
        self,
        target: str,
        vocabulary: SemanticIDVocabulary,
        catalog: Catalog,
        backbone: dict[str, Any],
        objective: DistillationObjective,
        list_length: PositiveInt = 10,
        n_beams: PositiveInt = 20,
        draft_width: PositiveInt = 40,
        objective_weight: ClosedUnitInterval = 0.7,
        renormalise: bool = False,
        learning_rate: PositiveFloat = 1e-3,
        weight_decay: NonNegativeFloat = 0.1,
        warmup_steps: NonNegativeInt = 100,
        compile: bool = False,
        seed: Seed = 0,
    ) -> None:
        check_arguments(AtSpeedDraft, locals())
        optimisation = {"learning_rate": learning_rate, "weight_decay": weight_decay, "warmup_steps": warmup_steps}
        super().__init__(target, vocabulary, catalog, list_length, compile, seed=seed, **optimisation)
        if n_beams > catalog.n_leaves or draft_width < list_length:
            raise InputError(
                f"n_beams {n_beams} and draft_width {draft_width}: expected at most the catalog's {catalog.n_leaves} "
                f"different semantic IDs, and at least list_length {list_length}"
            )
        # Not the target and the objective: a checkpoint's would silently override the config's.
        linked = ["vocabulary", "catalog", "list_length", "prompt_format"]
        self.save_hyperparameters(ignore=["target", "objective", *linked])
        self.objective = objective
        self.network = build_backbone(backbone, vocabulary)
        self.settings = {"backbone": settings_of(self.network)}
        self._n_beams, self._draft_width = n_beams, draft_width
        self._objective_weight = objective_weight
        self._trie = CatalogTrie(catalog, vocabulary)
        widths = (n_beams, list_length, draft_width)
        self._plans = {width: SpeculativeBeamPlan.of(self._trie, width, width, renormalise) for width in widths}
        self.leaf_tokens: Tensor  # the code tokens of each leaf, [n_leaves, L]
        self.register_buffer("leaf_tokens", vocabulary.encode(catalog.leaf_codes)[:, : catalog.n_slots], False)
        self._constraint: CatalogConstraint | None = None  # on the device, for searches
        self._runner: TransformersRunner | None = None  # the target's
        self._drafted: PrefixSearch | None = None  # the draft's, during a validation
        self.accepted_steps = Mean()
        self.contained_shares = nn.ModuleList(Mean() for _ in range(catalog.n_slots))

    def metric_names(self) -> set[str]:
        """See `TrainableModule`."""
        contained_slots = {f"val/contained_slot_{slot}" for slot in range(self.catalog.n_slots)}
        logged = {"train/cross_entropy", "train/distillation", "val/accepted_steps"}
        return super().metric_names() | logged | contained_slots

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """The weighted sum of the logged items' cross-entropy and the objective."""
        for model in (self.target.model, self.network):
            check_length(model.config, batch.tokens.shape[1] + self.catalog.n_slots - 1)
        beams, present, prompt_lengths = self._target_beams(batch)
        rows = BranchedRows.of(batch.tokens, prompt_lengths, beams)
        with torch.no_grad():
            target_features = self.target(rows.tokens, rows.positions, rows.visible)  # [B, S, d]
        features: Tensor = self.network.base_model(
            input_ids=rows.tokens, position_ids=rows.positions, attention_mask=rows.visible, use_cache=False
        ).last_hidden_state
        codes, predictors = self._logged_items(batch, rows)
        logits = self._logits(features, predictors)
        total = nn.functional.cross_entropy(logits, codes.flatten(), reduction="sum")
        cross_entropy = self.mean_over_tokens(total, torch.tensor(codes.numel(), device=self.device))
        counted = torch.ones_like(codes[:, 0], dtype=torch.bool)
        if self.objective.on_beams:
            codes, predictors, counted = beams.flatten(0, 1), rows.predictors.flatten(0, 1), present.flatten()
            logits = self._logits(features, predictors)
        with torch.no_grad():
            target_logits = self.target.logits(picked(target_features, predictors.flatten())).float()
        distillation = self._distillation(logits, target_logits, codes, counted)
        loss = (1 - self._objective_weight) * cross_entropy + self._objective_weight * distillation
        parts = {"train/cross_entropy": cross_entropy, "train/distillation": distillation}
        self.log("train/loss", loss, prog_bar=True, sync_dist=True, batch_size=len(batch.tokens))
        self.log_dict(parts, sync_dist=True, batch_size=len(batch.tokens))
        return loss

    def _target_beams(self, batch: SequenceBatch) -> tuple[Tensor, Tensor, Tensor]:
        """The codes of the target's beams, int64 `[B, K, L]`, which exist, bool `[B, K]`, and the prompts' lengths."""
        lengths = self._prompt_lengths(batch)
        if not self.objective.on_beams:
            nodes = lengths.new_zeros(len(lengths), 0)
        else:
            longest = int(lengths.max().clamp(min=1))
            prompts = Prompts(batch.tokens[:, :longest], batch.slots[:, :longest], lengths.clamp(min=1))
            nodes = self._target_search(self._n_beams)(prompts)[-1]
        found = nodes != self._trie.sink
        leaves = self._trie.leaf(nodes).where(found, 0)
        return self.leaf_tokens[leaves], found & (lengths > 0)[:, None], lengths.clamp(min=1)

    def _prompt_lengths(self, batch: SequenceBatch) -> Tensor:
        """Tokens of each row before a logged item after the first one, drawn evenly; 0 without such an item."""
        first_codes = batch.slots == 0
        column = torch.arange(batch.tokens.shape[1], device=self.device)
        ends = batch.supervised & first_codes & (column > first_codes.int().argmax(1)[:, None])  # [B, T]
        # By the batch's number and the row's tokens: the same on any number of processes.
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.trainer.fit_loop.total_batch_idx)
        drawn = float(torch.rand((), generator=generator))
        place = (drawn + _GOLDEN_RATIO * batch.tokens.sum(1).double()) % 1 * ends.sum(1)  # [B]
        return (ends & (ends.cumsum(1) == 1 + place.long()[:, None])).int().argmax(1)

    def _logged_items(self, batch: SequenceBatch, rows: BranchedRows) -> tuple[Tensor, Tensor]:
        """The supervised items' codes, and the flat places in `rows` that predict them; both int64 `[M, L]`."""
        starts = rows_of(batch.supervised & (batch.slots == 0))[:, None]
        places = starts + torch.arange(self.catalog.n_slots, device=self.device)
        added = rows.tokens.shape[1] - batch.tokens.shape[1]
        shift = starts.div(batch.tokens.shape[1], rounding_mode="floor") * added
        return batch.tokens.flatten()[places], places + shift - 1

    def _logits(self, features: Tensor, predictors: Tensor) -> Tensor:
        """The draft's logits at flat places `[N, L]`, float32 `[N L, V]`."""
        logits: Tensor = self.network.get_output_embeddings()(picked(features, predictors.flatten()))
        return logits.float()

    def _distillation(self, logits: Tensor, target_logits: Tensor, codes: Tensor, counted: Tensor) -> Tensor:
        """The objective's mean over the prefixes of items with codes `[N, L]`, where counted `[N]`."""
        trie = self._trie.to(self.device)
        nodes = prefix_nodes(trie, codes).flatten()
        choices = CodeChoices.of(logits, target_logits, nodes, codes.flatten(), trie)
        weights = counted[:, None].expand_as(codes).flatten() & (trie.n_children(nodes) > 1)
        return self.mean_over_tokens((self.objective(choices) * weights).sum(), weights.sum())

    def validation_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Search with target and draft, and log how much of the target's beams the draft's contain."""
        counted, means = batch.rows(batch.counted), cast(list[Mean], list(self.contained_shares))
        if len(counted.tokens) > 0:
            prompts = Prompts(counted.tokens, counted.slots, counted.lengths)
            beams = self._target_search(self.list_length)(prompts)
            if self._drafted is None:
                network = in_step_precision(self.network, self.device.type)
                self._drafted = self._search(TransformersRunner(network), self._draft_width)
            shares, accepted = contained(beams, self._drafted(prompts), self._trie.sink)
            self.accepted_steps.update(accepted)
            for mean, share in zip(means, shares.unbind(1), strict=True):
                mean.update(share)
        # Every process logs, even without users: all take part in the reduction.
        self.log("val/accepted_steps", self.accepted_steps, prog_bar=True, on_step=False, on_epoch=True)
        for slot, mean in enumerate(means):
            self.log(f"val/contained_slot_{slot}", mean, on_step=False, on_epoch=True)

    def on_validation_end(self) -> None:
        """Drop the draft's search: it holds joined weights, which training changes."""
        self._drafted = None

    def _target_search(self, width: int) -> PrefixSearch:
        self._runner = self._runner or self.target_runner()
        return self._search(self._runner, width)

    def _search(self, runner: TransformersRunner, width: int) -> PrefixSearch:
        if self._constraint is None:
            self._constraint = CatalogConstraint(self._trie.to(self.device), self.vocabulary, self.list_length)
        return PrefixSearch(runner, self._constraint, self._plans[width])
