"""Everything that is measured about one arm, reduced over batches and processes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchmetrics import Metric, MetricCollection

from padrec.catalog import Catalog
from padrec.data.batches import PromptBatch, TextPromptBatch
from padrec.decoding import DecodingTrace, GeneratedText, Recommendations
from padrec.metrics import (
    NDCG,
    AcceptanceLength,
    AcceptanceRate,
    AcceptedLengths,
    AcceptedPerPass,
    ItemNDCG,
    ItemRecall,
    Latency,
    Mean,
    Recall,
    Speed,
    Speedup,
    Total,
    UsersByPasses,
    latency_percentiles,
)
from padrec.metrics.ranking import UserMean, distinct

SPEEDUP_OVER = "speedup_over_"
"""Prefix of the names of speedups over further references; the arm's name follows."""
CUTOFFS = (5, 10)
"""Lengths at which lists are judged by default."""
_RANKING: dict[str, Callable[[int], Metric]] = {
    "ndcg": NDCG,
    "recall": Recall,
    "item_ndcg": ItemNDCG,
    "item_recall": ItemRecall,
}
# Rows whose rankings are updated together: batch by batch, their many small operations take milliseconds each.
_RANKED_TOGETHER = 256


class ListQuality(nn.Module):
    """Rankings of lists cut at each of `cutoffs`, and the shares of valid and of distinct items."""

    def __init__(self, catalog: Catalog, cutoffs: Sequence[int] = CUTOFFS) -> None:
        super().__init__()
        self._leaf_of_item, self._leaf_sizes = catalog.leaf_of_item, catalog.leaf_sizes
        rankings: dict[str, Metric | MetricCollection] = {
            f"{name}@{k}": metric(k) for name, metric in _RANKING.items() for k in sorted(set(cutoffs))
        }
        self._rankings = tuple(rankings)  # in this order in the report
        self.ranking = MetricCollection(rankings, compute_groups=False)
        self.valid, self.distinct = Mean(), Mean()
        self._unranked: list[tuple[Tensor, Tensor, Tensor]] = []  # leaves, relevant leaves and relevant items

    def update(self, batch: PromptBatch, output: Recommendations) -> None:
        """Add a batch without padding rows, all of it on the CPU."""
        self.valid.update(output.leaves >= 0)
        self.distinct.update((distinct(output.leaves) >= 0).double().mean(1))
        self._unranked.append((output.leaves, batch.relevant, batch.relevant_items))
        if sum(len(leaves) for leaves, _, _ in self._unranked) >= _RANKED_TOGETHER:
            self._rank()

    def _rank(self) -> None:
        """Update the ranking metrics with all pending rows."""
        if not self._unranked:
            return
        device = self.valid.device
        leaves, relevant, relevant_items = (
            pad_sequence([row for part in parts for row in part], batch_first=True, padding_value=-1).to(device)
            for parts in zip(*self._unranked, strict=True)
        )
        self._unranked = []
        self.ranking.update(
            recommended=leaves,
            relevant=relevant,
            relevant_items=relevant_items,
            leaf_of_item=self._leaf_of_item.to(device),
            leaf_sizes=self._leaf_sizes.to(device),
        )

    def result(self) -> dict[str, Any]:
        """The metrics by name; call it on every process, since it reduces over them."""
        self._rank()
        ranking = self.ranking.compute()
        return {
            **{name: float(ranking[name]) for name in self._rankings},
            "quality_ci95": {name: list(cast(UserMean, self.ranking[name]).interval()) for name in self._rankings},
            "valid_items": float(self.valid.compute()),
            "distinct_items": float(self.distinct.compute()),
        }


@dataclass(frozen=True)
class ArmResult:
    """One arm's numbers for the report, and the distributions behind them for the figures."""

    name: str
    metrics: dict[str, Any]  # the arm's part of `report.json`, by name
    # Accepted share of the draft tokens reached by verification, by slot of the token and draft depth 1 … D, float64
    # [L + 2, D], for texts [1, D]; NaN where none was reached. D is 0 without a draft.
    acceptance: Tensor
    accepted_lengths: Tensor  # number of rounds that accepted 0, 1, …, D draft tokens, int64 [D + 1]
    latencies_ms: Tensor  # milliseconds that each user waited, ascending, float64 [users]

    @property
    def max_depth(self) -> int:
        """D, the deepest proposal of a round; 0 without a draft."""
        return self.acceptance.shape[1]


class ArmMetrics(nn.Module):
    """The metrics of one arm of a comparison.

    They are updated on the CPU, which holds the traces: a GPU would take longer for many small sums than for decoding.
    If processes communicate through GPUs, move the module there before `result`.

    Args:
        outputs: what is generated, for the names of the metrics.
        n_slot_states: slots by which acceptance is counted, L + 2 for lists, 1 for texts.
        max_depth: D, the arm's deepest proposal.
        quality: metrics of the lists themselves; None for texts.
        sequential: whether each token depends on the ones before it, so that two outputs have a first difference.
        further_references: arms beside the reference arm to compute speedups over.
        decoders: names of the decoders that the arm chooses among, if any; see `DecodingTrace.decoder`.
        sources: names of what proposes, if acceptance is counted by source; see `DecodingTrace.accepted_by_source`.
    """

    def __init__(
        self,
        outputs: Literal["lists", "texts"],
        n_slot_states: int,
        max_depth: int,
        quality: ListQuality | None = None,
        sequential: bool = True,
        further_references: Sequence[str] = (),
        decoders: Sequence[str] = (),
        sources: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._outputs, self.quality = outputs, quality
        self._sequential = sequential
        self._further_references = tuple(further_references)
        self.speed, self.latency, self.recording_seconds = Speed(), Latency(), Total()
        self.acceptance_length, self.accepted_per_pass = AcceptanceLength(), AcceptedPerPass()
        self.accepted_lengths = AcceptedLengths(max_depth)
        self.rates = MetricCollection(
            {by: AcceptanceRate(n_slot_states, max_depth, by=by) for by in ("slot", "depth", "slot_and_depth")}
            if max_depth > 0
            else {},
            compute_groups=False,
        )
        self.users_by_passes, self.draft_passes = UsersByPasses(), Total()
        self.identical, self.margins = Mean(), Mean()
        # Registered as lists, since a module's name cannot hold every character of an arm's or a decoder's name.
        self._speedups = [Speedup() for _ in ("reference", *further_references)]
        self._written_by, self._accepted_by = ({name: Total() for name in names} for names in (decoders, sources))
        self.speedups, self.written_by = nn.ModuleList(self._speedups), nn.ModuleList(self._written_by.values())
        self.accepted_by = nn.ModuleList(self._accepted_by.values())

    def update(
        self,
        batch: PromptBatch | TextPromptBatch,
        output: Recommendations | GeneratedText,
        trace: DecodingTrace,
        expected: Recommendations | GeneratedText | None,
        reference_trace: DecodingTrace,
        further_traces: Sequence[DecodingTrace] = (),
    ) -> None:
        """Add one batch without padding rows, all of it on the CPU.

        `expected` is what another arm with the same search wrote; None if there is no such arm. The further traces are
        those of the further references, in their order.
        """
        self.add_recording(trace)
        if self.quality is not None:
            self.quality.update(cast(PromptBatch, batch), cast(Recommendations, output))
        self.speed.update(trace.seconds, trace.prefill_seconds, trace.tokens)
        self.latency.update(trace.seconds, torch.ones_like(trace.tokens, dtype=torch.bool))
        for speedup, other in zip(self._speedups, (reference_trace, *further_traces), strict=True):
            speedup.update(int(batch.users[0]), other.seconds, trace.seconds)
        self.acceptance_length.update(trace.tokens, trace.target_passes)
        self.accepted_per_pass.update(trace.accepted_lengths)
        self.accepted_lengths.update(trace.accepted_lengths)
        self.rates.update(trace.attempted, trace.accepted)
        self.users_by_passes.update(trace.target_passes)
        self.draft_passes.update(trace.draft_passes)
        for name, total in self._written_by.items():
            total.update(len(output.tokens) if name == trace.decoder else 0)
        for name, total in self._accepted_by.items():
            total.update(trace.accepted_by_source.get(name, 0))
        # Empty updates leave the means NaN; without any update, torchmetrics would warn.
        same, margins = (torch.zeros(0), torch.zeros(0)) if expected is None else _compared(output, expected)
        self.identical.update(same)
        self.margins.update(margins if self._sequential else margins[:0])

    def add_recording(self, trace: DecodingTrace) -> None:
        """Add the one-time costs of a decode, which may be a warm-up that counts for nothing else."""
        self.recording_seconds.update(trace.recording_seconds)

    def result(self, name: str, is_reference: bool) -> ArmResult:
        """Return the arm's part of the report; call it on every process, since it reduces over them."""
        speed = _floats(self.speed.compute())
        latencies = self.latency.compute().cpu()
        speedup, *further_speedups = (_floats(metric.compute()) for metric in self._speedups)
        over: dict[str, Any] = {}
        for other, found in zip(self._further_references, further_speedups, strict=True):
            over |= _speedup(f"{SPEEDUP_OVER}{other}", found)
        rates = {by: rate.cpu() for by, rate in self.rates.compute().items()}
        margin = float(self.margins.compute())
        accepted_lengths = self.accepted_lengths.compute().cpu()
        written_by = {decoder: int(total.compute()) for decoder, total in self._written_by.items()}
        metrics: dict[str, Any] = {
            "seconds": speed["seconds"],
            "prefill_seconds": speed["prefill_seconds"],
            "recording_seconds": float(self.recording_seconds.compute()),
            "tokens": int(speed["tokens"]),
            "tokens_per_second": speed["tokens_per_second"],
            f"{self._outputs}_per_second": speed["lists_per_second"],
            "latency_ms": latency_percentiles(latencies),
            **_passes(accepted_lengths.tolist(), self.users_by_passes.compute().tolist()),
            "draft_passes": int(self.draft_passes.compute()),
            "acceptance_length": float(self.acceptance_length.compute()),
            "accepted_per_pass": float(self.accepted_per_pass.compute()),
            "acceptance_by_slot": rates["slot"].tolist() if rates else [],
            "acceptance_by_depth": rates["depth"].tolist() if rates else [],
            **({} if self.quality is None else self.quality.result()),
            **_speedup("speedup", dict.fromkeys(speedup, 1.0) if is_reference else speedup),
            **over,
            f"identical_{self._outputs}": float(self.identical.compute()),
            "first_difference_margin": None if isnan(margin) else margin,
        }
        if any(written_by.values()):
            metrics[f"{self._outputs}_by"] = {decoder: count for decoder, count in written_by.items() if count > 0}
        if self._accepted_by:
            metrics["accepted_by"] = {name: int(total.compute()) for name, total in self._accepted_by.items()}
        acceptance = rates.get("slot_and_depth", torch.zeros(0, 0, dtype=torch.float64))
        return ArmResult(name, metrics, acceptance, accepted_lengths, latencies)


def quality_metric(metrics: Iterable[str]) -> str:
    """Which of an arm's metrics stands for the quality of its lists: NDCG at the largest cutoff; empty for texts."""
    found = [name for name in metrics if name.startswith("ndcg@")]
    return max(found, key=lambda name: int(name.partition("@")[2]), default="")


def _passes(accepted_lengths: list[int], users_by_passes: list[int]) -> dict[str, Any]:
    """Numbers from the histograms of rounds by accepted steps, and of users by passes."""
    users, accepted, passes = sum(users_by_passes), _weighted(accepted_lengths), _weighted(users_by_passes)
    return {
        "target_passes": passes,
        "accepted_steps": accepted / users,
        "accepted_share": accepted / max(1, accepted + passes),
        "one_pass_users": users_by_passes[0] / users,
        "users_by_target_passes": users_by_passes,
    }


def _weighted(histogram: list[int]) -> int:
    """The sum of what a histogram by 0, 1, … counts."""
    return sum(value * count for value, count in enumerate(histogram))


def _floats(values: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _speedup(name: str, found: dict[str, float]) -> dict[str, Any]:
    return {name: found["speedup"], f"{name}_ci95": [found["low"], found["high"]], f"{name}_median": found["median"]}


def _compared(
    lists: Recommendations | GeneratedText, expected: Recommendations | GeneratedText
) -> tuple[Tensor, Tensor]:
    """Whether each list or text is the expected one, bool `[B]`, and the target's margin in each row that differs."""
    differs = lists.tokens != expected.tokens
    rows = differs.any(1).nonzero().flatten()
    first = differs[rows].long().argmax(1)
    # Up to the first difference both arms wrote the same tokens, so the gap between the log-probabilities of their
    # choices is the margin between the target's two best tokens, up to the numerics that made them differ.
    return ~differs.any(1), (lists.log_probs[rows, first] - expected.log_probs[rows, first]).abs()
