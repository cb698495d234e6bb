import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from padrec.quantization.sinkhorn import sinkhorn


def distances(m: int, k: int, seed: int = 0) -> Tensor:
    return torch.rand(m, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference_plan(costs: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Every scaling step on logarithms, float64."""
    middle = (costs.max() + costs.min()) / 2
    log_plan = -(costs - middle) / (costs.max() - middle) / epsilon
    for _ in range(iterations):
        log_plan = log_plan - log_plan.logsumexp(0, keepdim=True) + math.log(costs.shape[0] / costs.shape[1])
        log_plan = log_plan - log_plan.logsumexp(1, keepdim=True)
    return log_plan.exp()


@given(m=st.integers(2, 30), k=st.integers(2, 10), seed=st.integers(0, 99), epsilon=st.sampled_from([0.05, 0.5, 5.0]))
def test_the_plan_equals_one_computed_on_logarithms_only(m: int, k: int, seed: int, epsilon: float) -> None:
    costs = distances(m, k, seed)
    torch.testing.assert_close(sinkhorn(costs, epsilon).exp(), reference_plan(costs, epsilon, 50))


@given(scale=st.sampled_from([1e-20, 1.0, 1e20]), seed=st.integers(0, 9))
def test_small_epsilons_and_any_scale_stay_finite(scale: float, seed: int) -> None:
    costs = (distances(64, 16, seed) * scale).float()
    for epsilon in (0.003, 1e-4):
        plan = sinkhorn(costs, epsilon)
        assert bool(plan.isfinite().all())
        torch.testing.assert_close(plan.exp().sum(1), torch.ones(64))


def test_equal_distances_give_a_uniform_plan() -> None:
    torch.testing.assert_close(sinkhorn(torch.full((6, 3), 2.0)).exp(), torch.full((6, 3), 1 / 3))


def test_codes_share_the_items_equally() -> None:
    plan = sinkhorn(distances(40, 8), epsilon=0.1, iterations=200).exp()
    torch.testing.assert_close(plan.sum(0), torch.full((8,), 5.0, dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize("seed", range(5))
def test_a_small_epsilon_finds_the_optimal_assignment(seed: int) -> None:
    costs = distances(12, 12, seed)
    _, best = linear_sum_assignment(costs.numpy())
    assert sinkhorn(costs, epsilon=0.003, iterations=5000).argmax(1).tolist() == best.tolist()
