"""The target recommender: a causal language model over semantic-ID sequences."""

from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from transformers import PreTrainedModel

from padrec.catalog import Catalog, InputError, SemanticIDVocabulary
from padrec.data.batches import PromptBatch, SequenceBatch
from padrec.decoding import (
    AutoregressiveDecoder,
    Decoder,
    ListRequest,
    Prompts,
    Recommendations,
    Sampling,
    TransformersRunner,
)
from padrec.metrics import NDCG, Recall
from padrec.targets.backbone import build_backbone, fingerprint, load_backbone, save_backbone
from padrec.targets.residual_dropout import add_residual_dropout
from padrec.targets.training import TrainableModule


class TargetRecommender(TrainableModule):
    """Trains any transformers causal language model on users' sequences and writes lists with it.

    Every supervised token is predicted from all tokens before it, so one row trains all its cut points at once.
    Validation and test recommend under the catalog constraint, by greedy lists unless another decoder is given, and
    report NDCG and recall.

    Args:
        backbone: the model's transformers configuration, `model_type` and its settings; the vocabulary size and the
            special tokens follow from the vocabulary.
        vocabulary: the tokens; linked from the datamodule.
        catalog: the items, for validation and prediction; linked from the datamodule.
        list_length: K, items in a list; linked from the datamodule.
        learning_rate: peak learning rate.
        weight_decay: of matrices other than embeddings.
        warmup_steps: optimiser steps until the peak; cosine decay to zero follows.
        dropout: of the embeddings and of what layers add to them, see `add_residual_dropout`; attention has a setting
            of its own in `backbone`.
        label_smoothing: share of the truth that is spread evenly over the vocabulary, in [0, 1).
        initial_target: checkpoint or folder of a target of the same shape and vocabulary whose weights to start from.
        compile: compile the forward pass of training.
        decoder: what recommends in validation, test and prediction; None is `AutoregressiveDecoder`, which writes
            lists. A decoder that ranks, such as `BeamDecoder`, validates by its ranking.
        temperature: of the lists that `predict` writes; 0 is greedy.
        seed: of dropout and of sampled lists.

    Raises:
        InputError: an unknown model type or setting, a value out of range, or an initial target of other weights or
            another vocabulary.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        vocabulary: SemanticIDVocabulary,
        catalog: Catalog | None = None,
        list_length: int = 10,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.1,
        warmup_steps: int = 100,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        initial_target: str | None = None,
        compile: bool = False,
        decoder: Decoder | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, warmup_steps=warmup_steps, seed=seed)
        if not 0 <= label_smoothing < 1:
            raise InputError(f"label_smoothing {label_smoothing}: expected at least 0 and less than 1")
        # What only affects decoding is not saved: a checkpoint's value would silently override the config's.
        ignored = ["vocabulary", "catalog", "list_length", "decoder", "temperature", "initial_target"]
        self.save_hyperparameters(ignore=ignored)
        self.vocabulary = vocabulary
        self.catalog = catalog
        self.list_length = list_length
        self.sampling = Sampling(temperature=temperature)
        self.backbone = build_backbone(backbone, vocabulary)
        if initial_target is not None:
            self._start_from(initial_target)
        add_residual_dropout(self.backbone, dropout)
        self._label_smoothing = label_smoothing
        self._decoder = decoder or AutoregressiveDecoder()
        # Never the backbone itself: as a second submodule it would be in every checkpoint twice.
        self._compiled_forward = torch.compile(self.backbone.forward, dynamic=True) if compile else None
        self.validation_metrics = ranking_metrics("val/")
        self.test_metrics = ranking_metrics("test/")
        self._requests: dict[Sampling, ListRequest] = {}
        self._writer: tuple[TransformersRunner, Decoder] | None = None  # while writing

    @classmethod
    def load(cls, path: str | Path, catalog: Catalog | None = None) -> "TargetRecommender":
        """Read a Lightning checkpoint or a folder that `save_pretrained` wrote.

        Raises:
            InputError: nothing is there, or it is not a target.
        """
        path = Path(path)
        if path.is_dir():
            model, vocabulary = load_backbone(path)
            target = cls(backbone=_settings(model), vocabulary=vocabulary, catalog=catalog)
            target.backbone.load_state_dict(model.state_dict())
            return target
        checkpoint = read_checkpoint(path, "target")
        vocabulary = stored_vocabulary(checkpoint, "target")
        hyperparameters = {k: v for k, v in checkpoint["hyper_parameters"].items() if not k.startswith("_")}
        target = cls(**hyperparameters, vocabulary=vocabulary, catalog=catalog)
        target.load_state_dict(checkpoint["state_dict"])
        return target

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that transformers and `load` can read; see `save_backbone`."""
        save_backbone(self.backbone, self.vocabulary, folder)

    def fingerprint(self) -> str:
        """A short hash of the weights; see `targets.backbone.fingerprint`."""
        return fingerprint(self.backbone)

    def _start_from(self, path: str) -> None:
        initial = TargetRecommender.load(path)
        self.vocabulary.check_same(initial.vocabulary, f"the initial target {path}")
        try:
            self.backbone.load_state_dict(initial.backbone.state_dict())
        except RuntimeError as error:
            raise InputError(f"{path}: expected a target with the weights of `backbone` ({error})") from None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the vocabulary beside the weights."""
        checkpoint["kind"] = "target"
        checkpoint["vocabulary"] = self.vocabulary.to_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another vocabulary.

        Raises:
            InputError: the vocabularies differ.
        """
        self.vocabulary.check_same(stored_vocabulary(checkpoint, "target"), "the checkpoint")

    def training_step(self, batch: SequenceBatch, batch_idx: int) -> Tensor:
        """Mean cross-entropy of the supervised tokens, in nats, to the smoothed truth."""
        forward = self._compiled_forward or self.backbone
        logits = forward(input_ids=batch.tokens, use_cache=False).logits
        labels = batch.tokens[:, 1:].masked_fill(~batch.supervised[:, 1:], -100)
        total = nn.functional.cross_entropy(
            logits[:, :-1].float().flatten(0, 1),
            labels.flatten(),
            reduction="sum",
            label_smoothing=self._label_smoothing,
        )
        loss = self.mean_over_tokens(total, (labels != -100).sum())
        self.log("train/loss", loss, prog_bar=True, sync_dist=True, batch_size=len(batch.tokens))
        return loss

    def validation_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Recommend without sampling and count hits."""
        self._evaluate(batch, batch_idx, self.validation_metrics)

    def test_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Recommend without sampling and count hits."""
        self._evaluate(batch, batch_idx, self.test_metrics)

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> Recommendations:
        """Write one list for each prompt, at the module's temperature."""
        return self._write_lists(batch, batch_idx, self.sampling)

    def _evaluate(self, batch: PromptBatch, batch_idx: int, metrics: MetricCollection) -> None:
        lists = self._write_lists(batch, batch_idx, Sampling())
        metrics.update(lists.leaves.to(batch.relevant.device), batch.relevant, batch.counted)
        self.log_dict(cast(dict[str, Any], metrics), on_step=False, on_epoch=True, batch_size=len(batch.tokens))

    def _write_lists(self, batch: PromptBatch, batch_idx: int, sampling: Sampling) -> Recommendations:
        request = self._requests.get(sampling) or self._requests.setdefault(sampling, self._request(sampling))
        self.backbone.eval()
        seed = (self._seed * 1_000_003 + batch_idx) * 1009 + self.global_rank
        generator = torch.Generator().manual_seed(seed)
        prompts = Prompts(batch.tokens, batch.slots, batch.lengths)
        if self._writer is None:
            # A copy, since decoders keep what they have prepared for a runner.
            self._writer = TransformersRunner(self.backbone), deepcopy(self._decoder)
            self._writer[1].prepare(self._writer[0], self.vocabulary)
        runner, decoder = self._writer
        lists, _ = decoder.decode(runner, prompts, request, generator)
        return lists

    def on_validation_end(self) -> None:
        """Give up what wrote the lists: it holds joined weights, which training changes."""
        self._writer = None

    def on_test_end(self) -> None:
        """See `on_validation_end`."""
        self._writer = None

    def on_predict_end(self) -> None:
        """See `on_validation_end`."""
        self._writer = None

    def _request(self, sampling: Sampling) -> ListRequest:
        if self.catalog is None:
            raise InputError("writing lists needs the catalog: pass `catalog`, or link it from the datamodule")
        return ListRequest.build(self.catalog, self.vocabulary, self.list_length, sampling=sampling, device=self.device)


def ranking_metrics(prefix: str) -> MetricCollection:
    """NDCG and recall at 5 and 10 by leaf, named `<prefix>ndcg@5` and so on."""
    metrics = {f"ndcg@{k}": NDCG(k) for k in (5, 10)} | {f"recall@{k}": Recall(k) for k in (5, 10)}
    # Compute groups would merge metrics whose first batches happen to agree.
    return MetricCollection(dict(metrics), prefix=prefix, compute_groups=False)


def read_checkpoint(path: Path, kind: str | None = None) -> dict[str, Any]:
    """Read a Lightning checkpoint of a padrec module, tensors and primitives only.

    Args:
        path: the file.
        kind: `target` or `draft`; None takes either.

    Raises:
        InputError: no such file, not a checkpoint, or one of another kind of module.
    """
    if not path.is_file():
        expected = f"the checkpoint or folder of a {kind}" if kind else "a checkpoint"
        raise InputError(f"{path}: no such file, expected {expected}")
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the bytes happen to mean to the unpickler
        raise InputError(f"{path}: cannot be read as a Lightning checkpoint of tensors and primitives") from error
    if not isinstance(checkpoint, dict):
        raise InputError(f"{path}: holds a {type(checkpoint).__name__}, expected a checkpoint")
    found = checkpoint.get("kind")
    if found is None or found != (kind or found):
        raise InputError(f"{path}: a checkpoint of kind {found!r}, expected {kind or 'target or draft'!r}")
    return checkpoint


def stored_vocabulary(checkpoint: dict[str, Any], kind: str) -> SemanticIDVocabulary:
    """The vocabulary that a checkpoint was trained with.

    Args:
        checkpoint: of a `target` or a `draft`.
        kind: which of them is expected.

    Raises:
        InputError: a checkpoint of another kind.
    """
    if checkpoint.get("kind") != kind:
        raise InputError(f"a checkpoint of kind {checkpoint.get('kind')!r}, expected {kind!r}")
    return SemanticIDVocabulary(**checkpoint["vocabulary"])


def _settings(model: PreTrainedModel) -> dict[str, Any]:
    """What `build_backbone` needs to build this model again."""
    settings = model.config.to_diff_dict()
    for derived in ("architectures", "transformers_version", "vocab_size", "dtype"):
        settings.pop(derived, None)
    return {k: v for k, v in settings.items() if not k.endswith("_token_id")}
