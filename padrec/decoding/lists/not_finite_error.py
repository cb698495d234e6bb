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
    # An array, whose operations take a fifth of a tensor's time on lists as few as a service's.
    totals = log_probs.numpy().reshape(len(log_probs), -1).sum(1)
    if rows := [row for row, total in enumerate(totals.tolist()) if math.isnan(total)]:
        raise NotFiniteError(rows)
