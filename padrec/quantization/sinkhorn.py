"""Assignments that use all codes equally, by optimal transport."""

import math

import torch
from torch import Tensor

# Plain scaling steps between two on logarithms: these are ten times dearer.
_PLAIN_STEPS = 9


def sinkhorn(distances: Tensor, epsilon: float = 0.003, iterations: int = 50) -> Tensor:
    """Entropic transport of items to codes where every code takes an equal share of the items.

    Distances are first shifted and scaled to [−1, 1], as LC-Rec does, so that `epsilon` means the same for all data.
    exp(−d/ε) underflows already at the ε that is used, so the plan is kept as logarithms (Schmitzer 2019, section 3.1):
    every tenth scaling step (Cuturi 2013) runs on them, those between on the plan that it gave.

    Args:
        distances: `[m, K]`.
        epsilon: weight of the entropy; smaller comes closer to the cheapest balanced assignment.
        iterations: of scaling codes, then items; rounded up to a multiple of ten.

    Returns:
        Logarithm of the plan `[m, K]`: rows sum to 1, columns to about m / K. An item's code is the largest entry of
        its row.
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
    """Logarithm of what some plain scaling steps multiply a plan by, `[m, K]`; its rows sum to 1."""
    # What underflows counts as this little; the next step on logarithms finds its true size.
    tiny = torch.finfo(plan.dtype).eps ** 2
    rows = plan.new_ones(plan.shape[0])
    columns = plan.new_ones(plan.shape[1])
    for _ in range(_PLAIN_STEPS):
        columns = share / (rows @ plan).clamp(min=tiny)
        rows = 1 / (plan @ columns).clamp(min=tiny)
    return rows.log()[:, None] + columns.log()
