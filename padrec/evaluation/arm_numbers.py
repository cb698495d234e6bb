"""An arm's numbers, and how a table shows them."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from padrec.evaluation.arm_metrics import SPEEDUP_OVER

MISSING = "–"
_INTERVAL = "_ci95"


@dataclass(frozen=True)
class ArmNumbers:
    """The finite numbers of an arm, or their means over several seeds."""

    values: Mapping[str, float]  # by path in the arm's part of `report.json`: `speedup`, `latency_ms/p50`
    intervals: Mapping[str, tuple[float, float]]  # 95 %, by the same names, where there are any

    @classmethod
    def of(cls, metrics: Mapping[str, Any]) -> "ArmNumbers":
        """Return the numbers of an arm of a report."""
        pairs = {name.removesuffix(_INTERVAL): pair for name, pair in metrics.items() if name.endswith(_INTERVAL)}
        return cls(
            _flat(metrics), {name: (pair[0], pair[1]) for name, pair in pairs.items() if _finite(*pair or [None])}
        )

    @classmethod
    def over_seeds(cls, seeds: Sequence["ArmNumbers"]) -> "ArmNumbers":
        """Return means over seeds with intervals by Student's t, of the numbers that all have.

        A single seed keeps the intervals of its own report.
        """
        if len(seeds) == 1:
            return seeds[0]
        shared = [name for name in seeds[0].values if all(name in seed.values for seed in seeds)]
        samples = {name: [seed.values[name] for seed in seeds] for name in shared}
        means = {name: statistics.fmean(sample) for name, sample in samples.items()}
        margins = {name: _margin(sample) for name, sample in samples.items()}
        return cls(means, {name: (mean - margins[name], mean + margins[name]) for name, mean in means.items()})


@dataclass(frozen=True)
class Column:
    """A number in a table, with its interval if it has one."""

    key: str  # name of the number
    heading: str  # in Markdown
    form: Callable[[float], str]

    def cell(self, numbers: ArmNumbers) -> str:
        """Return the number as text, with its interval unless that is a point; a dash if there is none."""
        if self.key not in numbers.values:
            return MISSING
        value = self.form(numbers.values[self.key])
        low, high = map(self.form, numbers.intervals.get(self.key, (0.0, 0.0)))
        return value if low == high else f"{value} ({low} – {high})"


def column(key: str) -> Column:
    """Return the column of a number, also of one without a heading of its own."""
    if key in _COLUMNS:
        return _COLUMNS[key]
    if key.startswith(SPEEDUP_OVER):
        return Column(key, f"over {key.removeprefix(SPEEDUP_OVER)}", "{:.2f}".format)
    if key.startswith(("ndcg@", "recall@")):
        return Column(key, key.replace("ndcg", "NDCG"), "{:.4f}".format)
    return Column(key, key, "{:,.4g}".format)


def share_of_identical(share: float) -> str:
    """Write a share in per cent; a single list in 100,000 that differs is not rounded away."""
    return "100%" if share == 1 else f"{min(share, 0.9999):.2%}"


_COLUMNS = {
    key: Column(key, heading, form)
    for key, heading, form in (
        ("speedup", "speedup (95 %)", "{:.2f}".format),
        ("speedup_median", "median", "{:.2f}".format),
        ("acceptance_length", "τ", "{:.2f}".format),
        ("accepted_per_pass", "accepted per pass", "{:.2f}".format),
        ("target_passes", "target passes", "{:,.0f}".format),
        ("one_pass_users", "one pass", "{:.1%}".format),
        ("accepted_steps", "accepted steps", "{:.2f}".format),
        ("accepted_share", "accepted share", "{:.1%}".format),
        ("tokens_per_second", "tokens/s", "{:,.0f}".format),
        ("lists_per_second", "lists/s", "{:,.2f}".format),
        ("texts_per_second", "texts/s", "{:,.2f}".format),
        ("latency_ms/p50", "p50 ms", "{:,.1f}".format),
        ("latency_ms/p95", "p95 ms", "{:,.1f}".format),
        ("latency_ms/p99", "p99 ms", "{:,.1f}".format),
        ("identical_lists", "identical", share_of_identical),
        ("identical_texts", "identical", share_of_identical),
        ("recording_seconds", "recording (s)", "{:,.1f}".format),
    )
}


def _margin(sample: Sequence[float]) -> float:
    """Half the width of the 95 % interval of a mean."""
    from scipy.special import stdtrit  # the quantile of Student's t

    return float(stdtrit(len(sample) - 1, 0.975)) * statistics.stdev(sample) / math.sqrt(len(sample))


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Finite numbers in nested mappings, by their path."""
    found: dict[str, float] = {}
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}/")
        elif _finite(value):
            found[prefix + name] = float(value)
    return found


def _finite(*values: object) -> bool:
    return all(isinstance(value, int | float) and math.isfinite(value) for value in values)
