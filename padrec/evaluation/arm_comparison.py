"""What comparisons of lists and of texts share: every arm on every batch, and a report in the end."""

import shlex
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from transformers import PreTrainedModel

from padrec.catalog import InputError
from padrec.data import PromptBatch, TextPromptBatch
from padrec.decoding import (
    LIST_SEARCH,
    Decoder,
    DecodingSession,
    DecodingTrace,
    GeneratedText,
    Prompts,
    Recommendations,
    Request,
    TransformersRunner,
)
from padrec.decoding.device.device_name import device_name
from padrec.evaluation.arm_metrics import ArmMetrics, ArmResult, ListQuality
from padrec.evaluation.figures import comparison_figures, write_figures
from padrec.evaluation.report import Report, check_writable, main_metrics, software_versions
from padrec.evaluation.tensorboard import log_report
from padrec.targets import to_precision
from padrec.targets.named_users import named_users

_DTYPES = {"64-true": torch.float64, "32-true": torch.float32, "bf16-true": torch.bfloat16, "16-true": torch.float16}

B = TypeVar("B", PromptBatch, TextPromptBatch)
R = TypeVar("R", Recommendations, GeneratedText)
M = TypeVar("M", bound=nn.Module)


class Unregistered(Generic[M]):
    """Holds a module that another one must not own: Lightning would cast its rotary frequencies to half precision."""

    def __init__(self, module: M) -> None:
        self.module = module


class ArmComparison(L.LightningModule, ABC, Generic[B, R]):
    """Decodes the same prompts with several arms; the base of `SpeculativeEvaluator` and `TextEvaluator`.

    `test` runs every arm on every batch, in an order that alternates between batches, and writes `report.json` and
    `report.md` beside the TensorBoard files. Each arm first decodes the first batch once, untimed. `predict` uses one
    arm.

    Arguments are those of its children; `hyperparameters` are for loggers, beside those of the report.
    """

    prints_results = True  # in place of Lightning's table
    outputs: Literal["lists", "texts"]

    def __init__(
        self,
        arms: Mapping[str, Decoder],
        reference: str,
        further_references: Sequence[str] | None,
        predict_arm: str | None,
        seed: int,
        hyperparameters: Mapping[str, Any],
    ) -> None:
        super().__init__()
        if not arms or (predict_arm is not None and predict_arm not in arms):
            raise InputError(f"predict_arm {predict_arm!r} with the arms {list(arms)}: expected one of the arms")
        self._arms = dict(arms)
        self._reference, self._further_references = reference, list(further_references or [])
        self.predict_arm = predict_arm or list(arms)[-1]
        self._seed, self._hyperparameters = seed, hyperparameters
        # Created in `setup`; in plain dictionaries, so that the metrics stay on the CPU.
        self._metrics: dict[str, ArmMetrics] = {}
        self._sessions: dict[str, DecodingSession[R]] = {}
        self._batch_size = 0

    @abstractmethod
    def load_target(self) -> tuple[PreTrainedModel, str]:
        """The target in the precision of its weights, and its fingerprint."""

    @abstractmethod
    def new_request(self, device: torch.device) -> Request[R]:
        """What is generated."""

    @abstractmethod
    def new_quality(self) -> ListQuality | None:
        """Metrics of one arm's lists."""

    @abstractmethod
    def prompts(self, batch: B) -> Prompts:
        """What the target reads."""

    @abstractmethod
    def keep_sample(self, batch: B, results: Mapping[str, tuple[R, DecodingTrace]]) -> None:
        """Keep some of the arms' outputs to show."""

    @abstractmethod
    def shown_samples(self) -> Mapping[str, str]:
        """Markdown of the samples by tag."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the report says about the output that was asked for."""

    def setup(self, stage: str) -> None:
        """Check that the report can be written, and prepare target and arms on the device."""
        if stage == "test":
            for name in (self._reference, *self._further_references):
                if name not in self._arms:
                    raise InputError(f"arms {list(self._arms)}: expected the reference arm {name!r} among them")
            # Now and on every process: `log_dir` is a broadcast, which rank 0 alone would wait for in vain.
            self._folder = Path(self.trainer.log_dir or self.trainer.default_root_dir)
            check_writable(self._folder)
            # Now, so that it cannot fail after hours of decoding.
            self._versions = software_versions()
        precision = str(self.trainer.precision)
        if precision not in _DTYPES:
            raise InputError(f"trainer.precision {precision!r}: expected one of {', '.join(_DTYPES)} for decoding")
        device = self.trainer.strategy.root_device
        model, fingerprint = self.load_target()
        if model.dtype != _DTYPES[precision]:
            model = deepcopy(model)  # the next comparison may have a higher precision
            to_precision(model, _DTYPES[precision])
        model.eval().requires_grad_(False)
        self._runner = TransformersRunner(model.to(device), fingerprint)  # type: ignore[arg-type]
        request: Any = self.new_request(device)  # arms that write texts take requests of texts, too
        for name, arm in self._arms.items():
            session: Any = arm.bind(self._runner, request)
            self._sessions[name] = session
            self._metrics[name] = ArmMetrics(
                self.outputs,
                request.n_slot_states,
                arm.max_depth(request),
                quality=self.new_quality(),
                sequential=arm.search == LIST_SEARCH,
                further_references=self._further_references,
                decoders=arm.choices,
                sources=arm.sources,
            )

    def test_step(self, batch: B, batch_idx: int) -> None:
        """Decode one batch with every arm."""
        if not bool(batch.counted.any()):
            return
        batch = batch.rows(batch.counted)
        self._batch_size = max(self._batch_size, len(batch.tokens))
        names = list(self._arms)
        if batch_idx == 0:
            for name in names:
                _, warm_up = self.decode(name, batch, batch_idx)
                self._metrics[name].add_recording(warm_up)
        shift = batch_idx % len(names)
        order = names[shift:] + names[:shift]
        results = {name: self.decode(name, batch, batch_idx) for name in (order if batch_idx % 2 else order[::-1])}
        traces = {name: trace for name, (_, trace) in results.items()}
        further_traces = [traces[name] for name in self._further_references]
        models = models_of_comparison(self._arms, self._reference)
        on_cpu = batch.to("cpu")
        for name, (result, trace) in results.items():
            expected = None if (model := models[name]) is None else results[model][0]
            self._metrics[name].update(on_cpu, result, trace, expected, traces[self._reference], further_traces)
        self.keep_sample(on_cpu, {name: results[name] for name in names})

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
        log_report(self.loggers, report, figures, self.shown_samples(), self._hyperparameters)

    def _report(self, results: list[ArmResult]) -> Report:
        return Report(
            dataset=getattr(getattr(self.trainer, "datamodule", None), "dataset_name", ""),
            settings={
                "users": len(results[0].latencies_ms),
                **self.settings(),
                "batch_size": self._batch_size,
                "precision": str(self.trainer.precision),
                "device": device_name(self._runner.model.device),
            },
            versions=self._versions,
            seed=self._seed,
            command=shlex.join(["padrec", *sys.argv[1:]]),
            reference=self._reference,
            arms={
                result.name: {"lossless": arm.lossless, **arm.facts, **result.metrics}
                for result, arm in zip(results, self._arms.values(), strict=True)
            },
        )

    def decode(self, name: str, batch: B, number: int, prompts: Prompts | None = None) -> tuple[R, DecodingTrace]:
        """Output and trace of one arm for a batch, both on the CPU.

        The seed depends on the batch's `number`. The target reads `prompts`, by default `self.prompts(batch)`.
        """
        # Every arm gets the same seed, so that even sampled output can be compared one by one.
        seed = (self._seed * 1_000_003 + number) * 1009 + self.global_rank
        with named_users(self, batch):
            return self._sessions[name].decode(prompts or self.prompts(batch), torch.Generator().manual_seed(seed))


def models_of_comparison(arms: Mapping[str, Decoder], reference: str) -> dict[str, str | None]:
    """Return the arm whose output each arm's should equal: the first with the same search, the reference foremost.

    The reference is compared with itself. None for any other arm that is the first with its search.
    """
    first: dict[str, str] = {}
    for name in sorted(arms, key=lambda name: name != reference):
        first.setdefault(arms[name].search, name)
    models = {name: first[arm.search] for name, arm in arms.items()}
    return {name: None if model == name != reference else model for name, model in models.items()}
