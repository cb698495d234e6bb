"""Arms side by side on the same users: quality, speed and losslessness."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedModel

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
    Decoder,
    DecodingTrace,
    ListRequest,
    Prompts,
    Recommendations,
    Sampling,
    history_leaves,
)
from padrec.evaluation.arm_comparison import ArmComparison, Unregistered
from padrec.evaluation.arm_metrics import CUTOFFS, ListQuality
from padrec.evaluation.tensorboard import SampleLists, sample_lists_markdown
from padrec.targets import TargetRecommender
from padrec.targets.backbone import check_positions
from padrec.training import check_ids

_SAMPLE_USERS = 8


class SpeculativeEvaluator(ArmComparison[PromptBatch, Recommendations]):
    """Decodes lists for the same users with several arms and reports how they compare; see `ArmComparison`.

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

    outputs = "lists"

    def __init__(
        self,
        target: str | Path | TargetRecommender,  # with Path among them, jsonargparse does not read it as a config
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
        if not cutoffs:
            raise InputError("cutoffs []: expected at least one length of lists")
        source = type(target).__name__ if isinstance(target, TargetRecommender) else str(target)
        shown = {"target": source, "temperature": temperature, "top_k": top_k, "top_p": top_p}
        super().__init__(arms, reference, further_references, predict_arm, seed, shown)
        loaded = self.read_target(target)
        self._target = Unregistered(loaded)
        self.exclude = exclude
        self._vocabulary, self._catalog = vocabulary, catalog
        self._list_length = list_length
        self._constraint = constraint
        self._sampling = Sampling(temperature, top_k, top_p)
        self._cutoffs = tuple(cutoffs)
        vocabulary.check_same(loaded.vocabulary, f"the target {source}")
        check_ids(catalog, loaded.catalog, f"the target {source}")
        self._samples: list[SampleLists] = []

    def read_target(self, target: str | Path | TargetRecommender) -> TargetRecommender:
        """The target of the constructor, which the comparison may change."""
        return target.copy() if isinstance(target, TargetRecommender) else TargetRecommender.load(target)

    def load_target(self) -> tuple[PreTrainedModel, str]:
        """See `ArmComparison`."""
        target = self._target.module
        check_positions(target.backbone.config, self._vocabulary, getattr(self.trainer, "datamodule", None))
        # The fingerprint is that of the saved weights, before a cast.
        return target.plain_backbone(), target.fingerprint()

    def new_request(self, device: torch.device) -> ListRequest:
        """See `ArmComparison`."""
        data = getattr(self.trainer, "datamodule", None)
        return ListRequest.build(
            self._catalog,
            self._vocabulary,
            self._list_length,
            constrained=self._constraint is not None,
            sampling=self._sampling,
            training=data.split.train if isinstance(data, SemanticIDDataModule) else None,
            device=device,
        )

    def new_quality(self) -> ListQuality:
        """See `ArmComparison`."""
        return ListQuality(self._catalog, self._cutoffs)

    def prompts(self, batch: PromptBatch) -> Prompts:
        """See `ArmComparison`."""
        return Prompts(batch.tokens, batch.slots, batch.lengths)

    def keep_sample(self, batch: PromptBatch, results: Mapping[str, tuple[Recommendations, DecodingTrace]]) -> None:
        """See `ArmComparison`."""
        if sum(len(sample.prompts.users) for sample in self._samples) < _SAMPLE_USERS:
            leaves = {name: lists.leaves for name, (lists, _) in results.items()}
            self._samples.append(SampleLists(batch, leaves))

    def shown_samples(self) -> dict[str, str]:
        """See `ArmComparison`."""
        return {"test/sample_lists": sample_lists_markdown(self._samples, self._catalog, _SAMPLE_USERS)}

    def settings(self) -> dict[str, Any]:
        """See `ArmComparison`."""
        return {
            "list_length": self._list_length,
            "temperature": self._sampling.temperature,
            "constraint": self._constraint,
        }

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> Recommendations:
        """Return one list for each prompt, written by the chosen arm."""
        excluded = None
        if self.exclude == "history":
            excluded = history_leaves(self._catalog, batch.history, self._list_length)
        prompts = Prompts(batch.tokens, batch.slots, batch.lengths, excluded=excluded)
        lists, _ = self.decode(self.predict_arm, batch, batch_idx, prompts)
        return lists
