"""The error of a target whose logits are not finite."""

import math

from torch import Tensor

from padrec.catalog import InputError

_MOST_NAMED = 10


class NotFiniteError(InputError):
    """The target's logits are not finite for some rows of a batch; the lists of the others would be right.

    Rows are named by their numbers, or by `names`.
    """

    def __init__(self, rows: list[int], names: list[str] | None = None) -> None:
        self.rows = rows
        shown = (names or [f"row {row}" for row in rows])[:_MOST_NAMED]
        whose = ", ".join(shown) + (" …" if len(rows) > _MOST_NAMED else "")
        super().__init__(
            f"the target's logits for {whose} are not finite: expected finite ones; its weights may have diverged in "
            "training, or hold values that are not finite"
        )


def check_finite(log_probs: Tensor) -> None:
    """Check the log-probabilities of chosen tokens, `[B, *]`, which are NaN exactly where logits were not finite."""
    rows = [row for row, total in enumerate(log_probs.flatten(1).sum(1).tolist()) if math.isnan(total)]
    if rows:
        raise NotFiniteError(rows)
