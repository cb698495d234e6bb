"""Arms side by side on the same users: quality, speed and losslessness."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from padrec.catalog import (
    Catalog,
    InputError,
    NonNegativeFloat,
    NonZeroShare,
    PositiveInt,
    Seed,
    SemanticIDVocabulary,
    check_arguments,
)
from padrec.data import PromptBatch, SemanticIDDataModule
from padrec.decoding import (
    LIST_SEARCH,
    Decoder,
    DecodingSession,
    DecodingTrace,
    ListRequest,
    Prompts,
    Recommendations,
    Sampling,
    TransformersRunner,
    history_leaves,
)
from padrec.decoding.device.device_name import device_name
from padrec.evaluation.arm_metrics import CUTOFFS, ArmMetrics, ArmResult
from padrec.evaluation.figures import comparison_figures, write_figures
from padrec.evaluation.report import Report, check_writable, main_metrics, software_versions
from padrec.evaluation.tensorboard import SampleLists, log_report
from padrec.targets import TargetRecommender, to_precision
from padrec.targets.backbone import check_positions
from padrec.targets.named_users import named_users
from padrec.training import check_ids

_DTYPES = {"64-true": torch.float64, "32-true": torch.float32, "bf16-true": torch.bfloat16, "16-true": torch.float16}
_SAMPLE_USERS = 8


class SpeculativeEvaluator(L.LightningModule):
    """Decodes the same users with several arms and reports how they compare.

    `test` runs every arm on every batch, in an order that alternates between batches, and writes `report.json` and
    `report.md` beside the TensorBoard files. Each arm first decodes the first batch once, untimed. `predict` writes
    lists with one arm.

    Args:
        target: the target, or its checkpoint or folder. A module is copied, not changed.
        arms: decoders by name.
        vocabulary: the tokens; linked from the datamodule.
        catalog: the items; linked from the datamodule.
        list_length: K, items in a list; linked from the datamodule.
        temperature: 0 decodes greedily.
        top_k: see `Sampling`.
        top_p: see `Sampling`.
        constraint: `catalog` for lists of distinct, existing items, None for free decoding.
        reference: the arm that all arms are compared with in `test`.
        further_references: other arms to report speedups over.
        predict_arm: the arm that `predict` uses; None takes the last one.
        exclude: what `predict` does not recommend: `history`, the items of a prompt; None recommends any item.
        seed: seed of sampled lists.
        cutoffs: lengths K at which `test` judges the lists, by recall@K and NDCG@K.

    Raises:
        InputError: no arm, an unknown `predict_arm`, or no cutoff.
    """

    prints_results = True  # in place of Lightning's table

    def __init__(
        self,
        target: str | TargetRecommender,
        arms: Mapping[str, Decoder],
        vocabulary: SemanticIDVocabulary,
        catalog: Catalog,
        list_length: PositiveInt = 10,
        temperature: NonNegativeFloat = 0.0,
        top_k: PositiveInt | None = None,
        top_p: NonZeroShare = 1.0,
        constraint: Literal["catalog"] | None = "catalog",
        reference: str = "autoregressive",
        further_references: list[str] | None = None,
        predict_arm: str | None = None,
        exclude: Literal["history"] | None = None,
        seed: Seed = 0,
        cutoffs: Sequence[PositiveInt] = CUTOFFS,
    ) -> None:
        check_arguments(SpeculativeEvaluator, locals())
        super().__init__()
        if not arms or (predict_arm is not None and predict_arm not in arms):
            raise InputError(f"predict_arm {predict_arm!r} with the arms {list(arms)}: expected one of the arms")
        if not cutoffs:
            raise InputError("cutoffs []: expected at least one length of lists")
        self._target = target.copy() if isinstance(target, TargetRecommender) else TargetRecommender.load(target)
        self._arms = dict(arms)
        self._reference, self._further_references = reference, further_references or []
        self._predict_arm = predict_arm or list(arms)[-1]
        self.exclude = exclude
        self._vocabulary, self._catalog = vocabulary, catalog
        self._list_length = list_length
        self._constraint = constraint
        self._sampling = Sampling(temperature, top_k, top_p)
        self._seed, self._cutoffs = seed, tuple(cutoffs)
        source = target if isinstance(target, str) else type(target).__name__
        self._settings = {"target": source, "temperature": temperature, "top_k": top_k, "top_p": top_p}
        vocabulary.check_same(self._target.vocabulary, f"the target {source}")
        check_ids(catalog, self._target.catalog, f"the target {source}")
        # Created in `setup`; in plain dictionaries, so that the metrics stay on the CPU.
        self._metrics: dict[str, ArmMetrics] = {}
        self._sessions: dict[str, DecodingSession[Recommendations]] = {}
        self._samples: list[SampleLists] = []
        self._batch_size = 0

    def setup(self, stage: str) -> None:
        """Check that the report can be written, and prepare target and arms on the device.

        Raises:
            InputError: a draft of another target, no reference arm, an existing report, an unsupported precision, or
                texts longer than the target's positions.
        """
        if stage == "test":
            for name in (self._reference, *self._further_references):
                if name not in self._arms:
                    raise InputError(f"arms {list(self._arms)}: expected the reference arm {name!r} among them")
            # Now and on every process: `log_dir` is a broadcast, which rank 0 alone would wait for in vain.
            self._folder = Path(self.trainer.log_dir or self.trainer.default_root_dir)
            check_writable(self._folder)
            # Now, so that it cannot fail after hours of decoding.
            self._versions = software_versions()
        data = getattr(self.trainer, "datamodule", None)
        check_positions(self._target.backbone.config, self._vocabulary, data)
        precision = str(self.trainer.precision)
        if precision not in _DTYPES:
            raise InputError(f"trainer.precision {precision!r}: expected one of {', '.join(_DTYPES)} for decoding")
        device = self.trainer.strategy.root_device
        # The fingerprint is that of the saved weights, before the cast.
        fingerprint = self._target.fingerprint()
        backbone = self._target.plain_backbone().eval().requires_grad_(False)
        to_precision(backbone, _DTYPES[precision])
        self._runner = TransformersRunner(backbone.to(device), fingerprint)
        data = getattr(self.trainer, "datamodule", None)
        self._request = ListRequest.build(
            self._catalog,
            self._vocabulary,
            self._list_length,
            constrained=self._constraint is not None,
            sampling=self._sampling,
            training=data.split.train if isinstance(data, SemanticIDDataModule) else None,
            device=device,
        )
        for name, arm in self._arms.items():
            self._sessions[name] = arm.bind(self._runner, self._request)
            self._metrics[name] = ArmMetrics(
                self._catalog,
                self._vocabulary.n_slot_states,
                arm.max_depth(self._request),
                sequential=arm.search == LIST_SEARCH,
                further_references=self._further_references,
                decoders=arm.choices,
                cutoffs=self._cutoffs,
            )

    def test_step(self, batch: PromptBatch, batch_idx: int) -> None:
        """Decode one batch with every arm."""
        if not bool(batch.counted.any()):
            return
        batch = batch.rows(batch.counted)
        self._batch_size = max(self._batch_size, len(batch.tokens))
        names = list(self._arms)
        if batch_idx == 0:
            for name in names:
                _, warm_up = self._decode(name, batch, batch_idx)
                self._metrics[name].add_recording(warm_up)
        shift = batch_idx % len(names)
        order = names[shift:] + names[:shift]
        results = {name: self._decode(name, batch, batch_idx) for name in (order if batch_idx % 2 else order[::-1])}
        traces = {name: trace for name, (_, trace) in results.items()}
        further_traces = [traces[name] for name in self._further_references]
        models = models_of_comparison(self._arms, self._reference)
        users = batch.to("cpu")
        for name, (lists, trace) in results.items():
            expected = None if (model := models[name]) is None else results[model][0]
            self._metrics[name].update(users, lists, trace, expected, traces[self._reference], further_traces)
        if sum(len(sample.prompts.users) for sample in self._samples) < _SAMPLE_USERS:
            leaves = {name: results[name][0].leaves for name in names}
            self._samples.append(SampleLists(users, leaves))

    def on_test_epoch_end(self) -> None:
        """Write and log the report."""
        # Every process takes part in the reduction, on the device through which processes communicate.
        device = self.trainer.strategy.root_device
        results = [self._metrics[name].to(device).result(name, name == self._reference) for name in self._arms]
        report = self._report(results)
        main = main_metrics(results[0].metrics)
        shown = {tag: value for tag, value in report.scalars().items() if tag.rpartition("/")[2] in main}
        self.log_dict(shown, logger=False)
        if not self.trainer.is_global_zero:
            return
        figures = write_figures(comparison_figures(results), self._folder / "figures")
        report.write(self._folder)
        print(report.summary())
        rank_zero_info(f"Report written to {self._folder}")
        log_report(self.loggers, report, figures, self._samples, self._catalog, self._settings)

    def _report(self, results: list[ArmResult]) -> Report:
        return Report(
            dataset=getattr(getattr(self.trainer, "datamodule", None), "dataset_name", ""),
            users=len(results[0].latencies_ms),
            list_length=self._list_length,
            batch_size=self._batch_size,
            temperature=self._sampling.temperature,
            constraint=self._constraint,
            precision=str(self.trainer.precision),
            device=device_name(self._runner.model.device),
            versions=self._versions,
            seed=self._seed,
            command=" ".join(["padrec", *sys.argv[1:]]),
            reference=self._reference,
            arms={result.name: result.metrics for result in results},
        )

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> Recommendations:
        """Return one list for each prompt, written by the chosen arm."""
        excluded = None
        if self.exclude == "history":
            excluded = history_leaves(self._catalog, batch.history, self._list_length)
        lists, _ = self._decode(self._predict_arm, batch, batch_idx, excluded)
        return lists

    def _decode(
        self, name: str, batch: PromptBatch, batch_idx: int, excluded: Tensor | None = None
    ) -> tuple[Recommendations, DecodingTrace]:
        # Every arm gets the same seed, so that even sampled lists can be compared one by one.
        seed = (self._seed * 1_000_003 + batch_idx) * 1009 + self.global_rank
        prompts = Prompts(batch.tokens, batch.slots, batch.lengths, excluded=excluded)
        with named_users(self, batch):
            lists, trace = self._sessions[name].decode(prompts, torch.Generator().manual_seed(seed))
        return lists.cpu(), trace


def models_of_comparison(arms: Mapping[str, Decoder], reference: str) -> dict[str, str | None]:
    """Return the arm whose lists each arm's lists should equal: the first with the same search, the reference foremost.

    The reference is compared with itself. None for any other arm that is the first with its search.
    """
    first: dict[str, str] = {}
    for name in sorted(arms, key=lambda name: name != reference):
        first.setdefault(arms[name].search, name)
    models = {name: first[arm.search] for name, arm in arms.items()}
    return {name: None if model == name != reference else model for name, model in models.items()}
