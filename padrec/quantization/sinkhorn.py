"""Balanced assignments by optimal transport."""

import math

import torch
from torch import Tensor

# Plain scaling steps between two logarithmic ones, which cost ten times as much.
_PLAIN_STEPS = 9


def sinkhorn(distances: Tensor, epsilon: float = 0.003, iterations: int = 50) -> Tensor:
    """Entropic transport of items to codes in which every code takes an equal share of the items.

    Distances are first shifted and scaled to [−1, 1], as in LC-Rec, so that `epsilon` does not depend on the data.
    exp(−d/ε) underflows at the default ε, so the plan is kept as logarithms (Schmitzer 2019, section 3.1): every tenth
    scaling step (Cuturi 2013) runs on logarithms, the others on the plan itself.

    Args:
        distances: `[m, K]`.
        epsilon: weight of the entropy; smaller values come closer to the cheapest balanced assignment.
        iterations: scaling steps of codes and items; rounded up to a multiple of ten.

    Returns:
        Logarithm of the plan `[m, K]`: rows sum to 1, columns to about m / K. An item's code is its largest entry.
    """
    middle = (distances.amax() + distances.amin()) / 2
    amplitude = (distances.amax() - middle).clamp(min=torch.finfo(distances.dtype).tiny)
    log_plan = -(distances - middle) / amplitude / epsilon
    share = distances.shape[0] / distances.shape[1]
    for _ in range(math.ceil(iterations / (_PLAIN_STEPS + 1))):
        log_plan = log_plan - log_plan.logsumexp(0, keepdim=True) + math.log(share)
        log_plan = log_plan - log_plan.logsumexp(1, keepdim=True)
        log_plan = log_plan + _log_scaling(log_plan.exp(), share)
    return log_plan


def _log_scaling(plan: Tensor, share: float) -> Tensor:
    """Logarithm of the factors of some plain scaling steps of a plan whose rows sum to 1, `[m, K]`."""
    # Underflowing sums count as this; the next logarithmic step finds their true size.
    tiny = torch.finfo(plan.dtype).eps ** 2
    rows, columns = plan.new_ones(plan.shape[0]), plan.new_ones(plan.shape[1])
    for _ in range(_PLAIN_STEPS):
        columns = share / (rows @ plan).clamp(min=tiny)
        rows = 1 / (plan @ columns).clamp(min=tiny)
    return rows.log()[:, None] + columns.log()
