"""The target recommender: a causal language model over semantic-ID sequences."""

from collections.abc import Mapping
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from transformers import PreTrainedModel

from padrec.catalog import (
    Catalog,
    InputError,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ProperShare,
    Seed,
    SemanticIDVocabulary,
    check_arguments,
)
from padrec.data.batches import PromptBatch, SequenceBatch
from padrec.data.prompt_format import PromptFormat
from padrec.decoding import (
    AutoregressiveDecoder,
    Decoder,
    DecodingSession,
    ListRequest,
    Prompts,
    Recommendations,
    Sampling,
    TransformersRunner,
    check_length,
    check_model,
    history_leaves,
)
from padrec.metrics import NDCG, Recall
from padrec.targets.backbone import (
    SavedTarget,
    build_backbone,
    check_positions,
    fingerprint,
    in_step_precision,
    settings_of,
)
from padrec.targets.decoder_layers import CompiledLayers, add_residual_dropout
from padrec.targets.initial_weights import InitialModel, InitialWeights, PretrainedModel
from padrec.targets.named_users import named_users
from padrec.training import (
    TrainableModule,
    check_ids,
    picked,
    read_checkpoint,
    rows_of,
    stored_catalog,
    stored_hyperparameters,
    stored_vocabulary,
)

if TYPE_CHECKING:
    from padrec.targets.low_rank import LowRankAdapters


class TargetRecommender(TrainableModule):
    """Trains any transformers causal language model on users' sequences and writes lists with it.

    Every supervised token is predicted from all tokens before it, so a row trains all its prefixes at once. Validation
    and test recommend under the catalog constraint and report NDCG and recall.

    Args:
        vocabulary: the tokens; linked from the datamodule.
        backbone: the model's transformers configuration, `model_type` and its settings, without vocabulary size and
            special tokens; optional with `initial_weights`.
        initial_weights: weights to start from, such as `PretrainedModel` or `TargetWeights`; they must fit `backbone`
            if that is given. None draws them at random.
        catalog: the items, for validation and prediction; linked from the datamodule and saved with the weights.
        prompt_format: how prompts are written; linked from the datamodule and saved with the weights.
        list_length: K, items in a list; linked from the datamodule.
        learning_rate: peak learning rate.
        weight_decay: for matrices other than embeddings.
        warmup_steps: optimiser steps until the peak; cosine decay to zero follows.
        dropout: probability for embeddings and layer outputs, see `add_residual_dropout`; attention has its own setting
            in `backbone`.
        label_smoothing: share of the truth that is spread evenly over the vocabulary, in [0, 1).
        compile: compile the decoder layers for training; see `CompiledLayers`.
        decoder: recommends in validation, test and prediction; None is `AutoregressiveDecoder`, which writes lists. A
            decoder that ranks, such as `BeamDecoder`, validates by its ranking.
        temperature: for `predict`; 0 is greedy.
        exclude: what `predict` does not recommend: `history`, the items of the prompt; None recommends any item.
        seed: for dropout and sampled lists.

    Raises:
        InputError: a setting is unknown or out of range, both `backbone` and `initial_weights` are missing, or weights
            cannot be read or do not fit.
    """

    def __init__(
        self,
        vocabulary: SemanticIDVocabulary,
        backbone: dict[str, Any] | None = None,
        initial_weights: InitialWeights | None = None,
        catalog: Catalog | None = None,
        prompt_format: PromptFormat | None = None,
        list_length: PositiveInt = 10,
        learning_rate: PositiveFloat = 1e-3,
        weight_decay: NonNegativeFloat = 0.1,
        warmup_steps: NonNegativeInt = 100,
        dropout: ProperShare = 0.0,
        label_smoothing: ProperShare = 0.0,
        compile: bool = False,
        decoder: Decoder | None = None,
        temperature: NonNegativeFloat = 0.0,
        exclude: Literal["history"] | None = None,
        seed: Seed = 0,
    ) -> None:
        check_arguments(TargetRecommender, locals())
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, warmup_steps=warmup_steps, seed=seed)
        # Not what only affects decoding: a checkpoint's value would silently override the config's.
        decoding = ["list_length", "decoder", "temperature", "exclude"]
        ignored = ["vocabulary", "catalog", "prompt_format", "initial_weights", *decoding]
        self.save_hyperparameters(ignore=ignored)
        self.vocabulary = vocabulary
        self.catalog = catalog
        self.prompt_format = prompt_format
        self.list_length = list_length
        self.sampling = Sampling(temperature=temperature)
        self.exclude = exclude
        # A pretrained language model too, whose semantic-ID tokens are new.
        self.starts_random = not isinstance(initial_weights, TargetWeights)
        self._label_smoothing = label_smoothing
        self._decoder = decoder or AutoregressiveDecoder()
        self._adapters: LowRankAdapters | None = None
        self.backbone = self._build(backbone, initial_weights)
        check_model(self.backbone)
        # After the adapters, which replace the embedding module.
        add_residual_dropout(self.backbone, dropout)
        self._compiled = CompiledLayers(self.backbone) if compile else nullcontext()
        self.validation_metrics = ranking_metrics("val/")
        self.test_metrics = ranking_metrics("test/")
        self._session: DecodingSession[Recommendations] | None = None  # while lists are written

    def _build(self, backbone: dict[str, Any] | None, initial_weights: InitialWeights | None) -> PreTrainedModel:
        """The model; stores in the hyperparameters what `load` needs to build it again."""
        self.hparams.update(pretrained=None, lora=None)
        if initial_weights is None:
            if backbone is None:
                neither = "neither backbone nor initial_weights"
                raise InputError(f"{neither}: expected the settings of a new model, or weights to start from")
            return build_backbone(backbone, self.vocabulary)
        start = initial_weights.build(self.vocabulary, backbone, self._seed)
        if start.adapters is None:
            # Checkpoints hold all weights: `load` does not need the initial ones.
            self.hparams.update(backbone={**(backbone or {}), **settings_of(start.model)})
        else:
            self._adapters = start.adapters
            self.hparams.update(pretrained=start.adapters.path, lora=start.adapters.settings)
        return start.model

    @staticmethod
    def stored_initial_weights(hyperparameters: dict[str, Any]) -> dict[str, Any] | None:
        """Turn `pretrained` and `lora` of a checkpoint's hyperparameters, in place, into `initial_weights` of a config.

        None for a checkpoint that holds all weights.
        """
        path, lora = hyperparameters.pop("pretrained", None), hyperparameters.pop("lora", None)
        if path is None:
            return None
        return {"class_path": "padrec.PretrainedModel", "init_args": {"path": path, "lora": lora}}

    @classmethod
    def load(cls, path: str | Path, catalog: Catalog | None = None) -> "TargetRecommender":
        """Read a Lightning checkpoint or a folder of `save_pretrained`, with its own catalog or the given one."""
        path = Path(path)
        if path.is_dir():
            return cls._of(SavedTarget.read(path), catalog)
        checkpoint = read_checkpoint(path, "target")
        vocabulary = stored_vocabulary(checkpoint, "target")
        hyperparameters = stored_hyperparameters(checkpoint)
        stored = cls.stored_initial_weights(hyperparameters)
        initial_weights = None if stored is None else PretrainedModel(**stored["init_args"])
        if catalog is None:
            catalog = stored_catalog(checkpoint)
            checkpoint.pop("catalog", None)  # not read again to be compared with itself
        target = cls(**hyperparameters, vocabulary=vocabulary, initial_weights=initial_weights, catalog=catalog)
        target.on_load_checkpoint(checkpoint)
        target.load_state_dict(checkpoint["state_dict"])
        if "prompt_format" in checkpoint:
            target.prompt_format = PromptFormat.from_dict(checkpoint["prompt_format"])
        return target if target._adapters is None else cls._of(target.saved(), catalog)

    @classmethod
    def _of(cls, saved: SavedTarget, catalog: Catalog | None) -> "TargetRecommender":
        check_ids(catalog, saved.catalog, "the saved target")
        target = cls(
            saved.vocabulary,
            settings_of(saved.model),
            catalog=catalog or saved.catalog,
            prompt_format=saved.prompt_format,
        )
        target.backbone.load_state_dict(saved.model.state_dict())
        return target

    def copy(self) -> "TargetRecommender":
        """A new target with the same weights, on the CPU; adapters are merged."""
        return self._of(self.saved(), self.catalog)

    def saved(self) -> SavedTarget:
        """What `save_pretrained` writes."""
        return SavedTarget(self.plain_backbone(), self.vocabulary, self.catalog, self.prompt_format)

    def plain_backbone(self) -> PreTrainedModel:
        """The model for decoders: the backbone, or a copy with the adapters merged."""
        return self.backbone if self._adapters is None else self._adapters.merged()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a new folder for transformers, `load` and `Recommender`, with adapters merged; see `SavedTarget`."""
        self.saved().write(Path(folder))

    def fingerprint(self) -> str:
        """A short hash of the weights; see `targets.backbone.fingerprint`."""
        return fingerprint(self.plain_backbone())

    def setup(self, stage: str) -> None:
        """See `check_positions` and `TrainableModule.setup`."""
        super().setup(stage)
        check_positions(self.backbone.config, self.vocabulary, getattr(self.trainer, "datamodule", None))

    def metric_names(self) -> set[str]:
        """See `TrainableModule`."""
        return super().metric_names() | {str(name) for name in self.validation_metrics}

    def undecayed_modules(self) -> list[nn.Module]:
        """Embeddings and the rows of new tokens."""
        rows = [] if self._adapters is None else self._adapters.token_rows()
        return [*super().undecayed_modules(), *rows]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store vocabulary, catalog and prompt format; with adapters, drop the weights that are not trained."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["kind"] = "target"
        checkpoint["vocabulary"] = self.vocabulary.to_dict()
        if self.catalog is not None:
            checkpoint["catalog"] = self.catalog.to_state()
        if self.prompt_format is not None:
            checkpoint["prompt_format"] = self.prompt_format.to_dict()
        if self._adapters is not None:
            checkpoint["pretrained_fingerprint"] = self._adapters.fingerprint
            for name in self._adapters.frozen_weights():
                checkpoint["state_dict"].pop(f"backbone.{name}", None)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse another vocabulary, other semantic IDs or another pretrained model, and add the frozen weights."""
        self.vocabulary.check_same(stored_vocabulary(checkpoint, "target"), "the checkpoint")
        check_ids(self.catalog, stored_catalog(checkpoint), "the checkpoint")
        if self._adapters is None:
            return
        trained_on = checkpoint.get("pretrained_fingerprint")
        if trained_on != self._adapters.fingerprint:
            raise InputError(
                f"{self.hparams['pretrained']}: weights with fingerprint {self._adapters.fingerprint}, but the "
                f"checkpoint's adapters were trained for {trained_on}: expected the same pretrained model"
            )
        for name, weight in self._adapters.frozen_weights().items():
            checkpoint["state_dict"][f"backbone.{name}"] = weight

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """Mean cross-entropy of the supervised tokens with the smoothed truth, in nats."""
        check_length(self.backbone.config, batch.tokens.shape[1])
        supervised = batch.supervised[:, 1:]
        rows = rows_of(supervised)  # [M]
        labels = picked(batch.tokens[:, 1:], rows)  # [M]
        with self._compiled:
            features = self.backbone.base_model(input_ids=batch.tokens, use_cache=False).last_hidden_state
        # Only these tokens: with a text vocabulary, all logits would dominate memory.
        logits = self.backbone.get_output_embeddings()(picked(features[:, :-1], rows))  # [M, V]
        total = nn.functional.cross_entropy(
            logits.float(), labels, reduction="sum", label_smoothing=self._label_smoothing
        )
        loss = self.mean_over_tokens(total, supervised.sum())
        self.log("train/loss", loss, prog_bar=True, sync_dist=True, batch_size=len(batch.tokens))
        return loss

    def validation_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Recommend greedily and count hits."""
        self._evaluate(batch, batch_idx, self.validation_metrics)

    def test_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Recommend greedily and count hits."""
        self._evaluate(batch, batch_idx, self.test_metrics)

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> Recommendations:
        """Write a list for each prompt at the module's temperature."""
        return self._write_lists(batch, batch_idx, self.sampling, self.exclude)

    def _evaluate(self, batch: PromptBatch, batch_idx: int, metrics: MetricCollection) -> None:
        lists = self._write_lists(batch, batch_idx, Sampling())
        metrics.update(lists.leaves.to(batch.relevant.device), batch.relevant, batch.counted)
        self.log_dict(cast(dict[str, Any], metrics), on_step=False, on_epoch=True, batch_size=len(batch.tokens))

    def _write_lists(
        self, batch: PromptBatch, batch_idx: int, sampling: Sampling, exclude: Literal["history"] | None = None
    ) -> Recommendations:
        seed = (self._seed * 1_000_003 + batch_idx) * 1009 + self.global_rank
        generator = torch.Generator().manual_seed(seed)
        excluded = None
        if exclude == "history" and self.catalog is not None:
            excluded = history_leaves(self.catalog, batch.history, self.list_length)
        prompts = Prompts(batch.tokens, batch.slots, batch.lengths, excluded=excluded)
        self._session = self._session or self._new_session(sampling)
        with named_users(self, batch):
            lists, _ = self._session.decode(prompts, generator)
        return lists

    def _new_session(self, sampling: Sampling) -> DecodingSession[Recommendations]:
        if self.catalog is None:
            raise InputError("writing lists needs the catalog: pass `catalog`, or link it from the datamodule")
        request = ListRequest.build(
            self.catalog, self.vocabulary, self.list_length, sampling=sampling, device=self.device
        )
        model = self.plain_backbone().eval()
        original = fingerprint(model)  # before a change of precision, for drafts
        runner = TransformersRunner(in_step_precision(model, self.device.type), original)
        # A copy: a draft keeps the network that it made for its last target.
        return deepcopy(self._decoder).bind(runner, request)

    def on_validation_end(self) -> None:
        """Drop the session: it holds joined weights, which training changes."""
        self._session = None

    on_test_end = on_predict_end = on_validation_end


def ranking_metrics(prefix: str) -> MetricCollection:
    """NDCG and recall at 5 and 10 by leaf, named `<prefix>ndcg@5` and so on."""
    metrics = {f"ndcg@{k}": NDCG(k) for k in (5, 10)} | {f"recall@{k}": Recall(k) for k in (5, 10)}
    # Compute groups would merge metrics whose first batches happen to agree.
    return MetricCollection(dict(metrics), prefix=prefix, compute_groups=False)


@dataclass(frozen=True)
class TargetWeights(InitialWeights):
    """The weights of another target over the same vocabulary.

    Args:
        path: that target's checkpoint or folder; its adapters, if any, are merged.
    """

    path: str

    def build(self, vocabulary: SemanticIDVocabulary, backbone: Mapping[str, Any] | None, seed: int) -> InitialModel:
        """See `InitialWeights`."""
        initial = TargetRecommender.load(self.path)
        vocabulary.check_same(initial.vocabulary, f"the initial target {self.path}")
        model = build_backbone(backbone or settings_of(initial.backbone), vocabulary)
        try:
            model.load_state_dict(initial.backbone.state_dict())
        except RuntimeError as error:
            raise InputError(f"{self.path}: expected a target with the weights of `backbone` ({error})") from None
        return InitialModel(model)
