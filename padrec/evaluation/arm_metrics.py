"""Everything that is measured of one arm, reduced over batches and processes."""

from collections.abc import Sequence
from math import isnan
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from padrec.catalog import Catalog
from padrec.data.batches import PromptBatch
from padrec.decoding import DecodingTrace, Recommendations
from padrec.evaluation.arm_result import SPEEDUP_OVER, ArmResult
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
    latency_percentiles,
)

_CUTOFFS = (5, 10)
# Rows whose rankings are counted at once: one by one their many small operations take milliseconds each.
_RANKED_TOGETHER = 256


class ArmMetrics(nn.Module):
    """The metrics of one arm of a comparison.

    They are updated on the CPU, where traces come to: so many small sums would cost more time on a GPU than decoding
    does. To reduce them over processes that talk by their GPUs, move the module there before `result`.

    Args:
        catalog: the items.
        n_slot_states: L + 2.
        max_depth: D, the arm's deepest proposal.
        sequential: whether an item is written behind those before it, so that two lists have a first difference.
        further_references: names of the arms whose speed to compare with beside the reference arm's.
        decoders: names of those that the arm chooses among, if it does; see `DecodingTrace.decoder`.
    """

    def __init__(
        self,
        catalog: Catalog,
        n_slot_states: int,
        max_depth: int,
        sequential: bool = True,
        further_references: Sequence[str] = (),
        decoders: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._leaf_of_item, self._leaf_sizes = catalog.leaf_of_item, catalog.leaf_sizes
        self.max_depth = max_depth
        self._sequential = sequential
        self.leaf_ranking = _by_name(
            {f"ndcg@{k}": NDCG(k) for k in _CUTOFFS} | {f"recall@{k}": Recall(k) for k in _CUTOFFS}
        )
        self.item_ranking = _by_name(
            {f"item_ndcg@{k}": ItemNDCG(k) for k in _CUTOFFS} | {f"item_recall@{k}": ItemRecall(k) for k in _CUTOFFS}
        )
        self._unranked: list[tuple[Tensor, Tensor, Tensor]] = []  # leaves, relevant leaves and relevant items
        self.speed, self.latency, self.speedup = Speed(), Latency(), Speedup()
        self.recording_seconds = Total()
        self._further_references = tuple(further_references)
        self.speedups_over = nn.ModuleList(Speedup() for _ in further_references)  # in their order, as `lists_by`
        self.acceptance_length, self.accepted_per_pass = AcceptanceLength(), AcceptedPerPass()
        self.accepted_lengths = AcceptedLengths(max_depth)
        self.rates = _by_name(
            {by: AcceptanceRate(n_slot_states, max_depth, by=by) for by in ("slot", "depth", "slot_and_depth")}
            if max_depth > 0
            else {}
        )
        self.target_passes, self.draft_passes = Total(), Total()
        self._decoders = tuple(decoders)
        self.lists_by = nn.ModuleList(Total() for _ in decoders)  # in their order, since a name may hold anything
        self.valid, self.distinct, self.identical, self.margins = Mean(), Mean(), Mean(), Mean()

    def update(
        self,
        batch: PromptBatch,
        lists: Recommendations,
        trace: DecodingTrace,
        expected: Recommendations | None,
        reference_trace: DecodingTrace,
        further_traces: Sequence[DecodingTrace] = (),
    ) -> None:
        """Add one batch, all of whose rows count; everything on the CPU.

        Args:
            batch: the users.
            lists: what the arm recommended to them.
            trace: what that cost.
            expected: what another arm of the same search recommended to them; None where there is no such arm.
            reference_trace: what the reference arm's lists cost.
            further_traces: what the lists of the further references cost, in their order.
        """
        self.add_recording(trace)
        self._unranked.append((lists.leaves, batch.relevant, batch.relevant_items))
        if sum(len(leaves) for leaves, _, _ in self._unranked) >= _RANKED_TOGETHER:
            self._rank()
        self.speed.update(trace.seconds, trace.prefill_seconds, trace.tokens)
        self.latency.update(trace.seconds, torch.ones_like(trace.tokens, dtype=torch.bool))
        unit = int(batch.users[0])
        self.speedup.update(unit, reference_trace.seconds, trace.seconds)
        for (_, speedup), further in zip(self._speedups_over(), further_traces, strict=True):
            speedup.update(unit, further.seconds, trace.seconds)
        self.acceptance_length.update(trace.tokens, trace.target_passes)
        self.accepted_per_pass.update(trace.accepted_lengths)
        self.accepted_lengths.update(trace.accepted_lengths)
        for _, metric in _named(self.rates):
            metric.update(trace.attempted, trace.accepted)
        self.target_passes.update(trace.target_passes)
        self.draft_passes.update(trace.draft_passes)
        for name, total in self._lists_by():
            total.update(len(lists.leaves) if name == trace.decoder else 0)
        self._check(lists)
        # Without lists to compare with, the share and the margin are no numbers.
        same, margins = (torch.zeros(0), torch.zeros(0)) if expected is None else _compared(lists, expected)
        self.identical.update(same)
        self.margins.update(margins if self._sequential else margins[:0])

    def add_recording(self, trace: DecodingTrace) -> None:
        """Add what a decode, also one that counts for nothing else, paid once for all that follow."""
        self.recording_seconds.update(trace.recording_seconds)

    def _lists_by(self) -> list[tuple[str, Total]]:
        totals = [total for total in self.lists_by if isinstance(total, Total)]
        return list(zip(self._decoders, totals, strict=True))

    def _rank(self) -> None:
        """Count the rankings of all rows that still wait for it."""
        if not self._unranked:
            return
        device = self.speed.device
        leaves, relevant, relevant_items = (_stacked(rows).to(device) for rows in zip(*self._unranked, strict=True))
        self._unranked = []
        for _, metric in _named(self.leaf_ranking):
            metric.update(leaves, relevant)
        leaf_of_item, leaf_sizes = self._leaf_of_item.to(device), self._leaf_sizes.to(device)
        for _, metric in _named(self.item_ranking):
            metric.update(leaves, relevant_items, leaf_of_item, leaf_sizes)

    def _check(self, lists: Recommendations) -> None:
        self.valid.update(lists.leaves >= 0)
        self.distinct.update(_n_distinct(lists.leaves).double() / lists.leaves.shape[1])

    def _speedups_over(self) -> list[tuple[str, Speedup]]:
        speedups = [speedup for speedup in self.speedups_over if isinstance(speedup, Speedup)]
        return list(zip(self._further_references, speedups, strict=True))

    def _over_further_references(self) -> dict[str, Any]:
        metrics: dict[str, Any] = {}
        for name, speedup in self._speedups_over():
            found = {key: float(value) for key, value in speedup.compute().items()}
            key = f"{SPEEDUP_OVER}{name}"
            metrics |= {key: found["speedup"], f"{key}_ci95": [found["low"], found["high"]]}
        return metrics

    def result(self, name: str, is_reference: bool) -> ArmResult:
        """The arm's part of the report; every process must call this, since it reduces over them."""
        self._rank()
        speed = {key: float(value) for key, value in self.speed.compute().items()}
        latencies = self.latency.compute().cpu()
        speedup = {key: float(value) for key, value in self.speedup.compute().items()}
        rates = {by: metric.compute().cpu() for by, metric in _named(self.rates)}
        n_slot_states = rates["slot"].shape[0] if rates else 0
        margin = float(self.margins.compute())
        lists_by = {name: int(total.compute()) for name, total in self._lists_by()}
        metrics: dict[str, Any] = {
            "seconds": speed["seconds"],
            "prefill_seconds": speed["prefill_seconds"],
            "recording_seconds": float(self.recording_seconds.compute()),
            "tokens": int(speed["tokens"]),
            "tokens_per_second": speed["tokens_per_second"],
            "lists_per_second": speed["lists_per_second"],
            "latency_ms": {key: float(value) for key, value in latency_percentiles(latencies).items()},
            "target_passes": int(self.target_passes.compute()),
            "draft_passes": int(self.draft_passes.compute()),
            "acceptance_length": float(self.acceptance_length.compute()),
            "accepted_per_pass": float(self.accepted_per_pass.compute()),
            "acceptance_by_slot": rates["slot"].tolist() if rates else [],
            "acceptance_by_depth": rates["depth"].tolist() if rates else [],
            **{key: float(metric.compute()) for key, metric in _named(self.leaf_ranking)},
            **{key: float(metric.compute()) for key, metric in _named(self.item_ranking)},
            "valid_items": float(self.valid.compute()),
            "distinct_items": float(self.distinct.compute()),
            "speedup": 1.0 if is_reference else speedup["speedup"],
            "speedup_ci95": [1.0, 1.0] if is_reference else [speedup["low"], speedup["high"]],
            **self._over_further_references(),
            "identical_lists": float(self.identical.compute()),
            "first_difference_margin": None if isnan(margin) else margin,
            **({"lists_by": {name: count for name, count in lists_by.items() if count > 0}} if lists_by else {}),
        }
        acceptance = rates.get("slot_and_depth", torch.zeros(n_slot_states, 0, dtype=torch.float64))
        return ArmResult(name, metrics, acceptance, self.accepted_lengths.compute().cpu(), latencies)


def _by_name(metrics: dict[str, Metric]) -> nn.ModuleDict:
    # Names of modules must not hold a dot, but may hold anything else.
    return nn.ModuleDict(metrics)


def _named(metrics: nn.ModuleDict) -> list[tuple[str, Metric]]:
    return [(name, metric) for name, metric in metrics.items() if isinstance(metric, Metric)]


def _stacked(rows: tuple[Tensor, ...]) -> Tensor:
    """Rows `[B, n]` of several widths as one tensor, -1 behind the last entry of each."""
    width = max(part.shape[1] for part in rows)
    return torch.cat([nn.functional.pad(part, (0, width - part.shape[1]), value=-1) for part in rows])


def _compared(lists: Recommendations, expected: Recommendations) -> tuple[Tensor, Tensor]:
    """Whether each list is the expected one, bool `[B]`, and the target's margin in each row where it is not."""
    differs = lists.tokens != expected.tokens
    rows = differs.any(1).nonzero().flatten()
    first = differs[rows].long().argmax(1)
    # At the first difference both arms stand behind the same tokens, so the gap between the log-probabilities of
    # their choices is the margin between the target's two best tokens, up to the numerics that made them differ.
    return ~differs.any(1), (lists.log_probs[rows, first] - expected.log_probs[rows, first]).abs()


def _n_distinct(leaves: Tensor) -> Tensor:
    """Different items in each list `[B, K]`, int64 `[B]`; what is no item does not count."""
    ordered = leaves.sort(1).values
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return (new & (ordered >= 0)).sum(1)
