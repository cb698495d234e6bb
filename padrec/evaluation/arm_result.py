"""What a comparison found of one arm."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

SPEEDUP_OVER = "speedup_over_"
"""What the names of speedups over further references begin with; the arm's name follows."""


@dataclass(frozen=True)
class ArmResult:
    """One arm's numbers for the report, and the distributions behind them for the figures.

    Attributes:
        name: what the comparison calls the arm.
        metrics: the arm's part of `report.json`, by name.
        acceptance: share of the draft tokens reached by verification that it accepted, by slot of the token and draft
            depth 1 … D, float64 `[L + 2, D]`; NaN where none was reached. `D` is 0 without a draft.
        accepted_lengths: rounds in which 0, 1, …, D draft tokens were accepted, int64 `[D + 1]`.
        latencies_ms: milliseconds that each user waited, rising, float64 `[users]`.
    """

    name: str
    metrics: dict[str, Any]
    acceptance: Tensor
    accepted_lengths: Tensor
    latencies_ms: Tensor

    @property
    def max_depth(self) -> int:
        """D, the deepest proposal of a round; 0 without a draft."""
        return self.acceptance.shape[1]
