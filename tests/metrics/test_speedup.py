import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from padrec.catalog import InputError
from padrec.metrics import Speedup, paired_bootstrap_speedup

_SECONDS = st.floats(1e-3, 10)
_PAIRS = st.lists(st.tuples(_SECONDS, _SECONDS), min_size=1, max_size=8)


def paired(pairs: list[tuple[float, float]]) -> tuple[torch.Tensor, torch.Tensor]:
    reference, arm = torch.tensor(pairs, dtype=torch.float64).unbind(dim=1)
    return reference, arm


@given(pairs=_PAIRS)
def test_speedup_is_the_ratio_of_totals_inside_the_range_of_ratios(pairs: list[tuple[float, float]]) -> None:
    speedup, (low, high) = paired_bootstrap_speedup(*paired(pairs), n_resamples=50)
    ratios = [reference / arm for reference, arm in pairs]
    assert speedup == pytest.approx(sum(pair[0] for pair in pairs) / sum(pair[1] for pair in pairs))
    assert min(ratios) * (1 - 1e-9) <= low <= high <= max(ratios) * (1 + 1e-9)


@given(arm=st.lists(_SECONDS, min_size=1, max_size=8), factor=st.floats(0.1, 10))
def test_a_constant_ratio_has_no_uncertainty(arm: list[float], factor: float) -> None:
    speedup, interval = paired_bootstrap_speedup(*paired([(factor * seconds, seconds) for seconds in arm]), 50)
    assert (speedup, *interval) == pytest.approx((factor,) * 3)


def test_interval_equals_the_percentiles_over_every_resample() -> None:
    pairs = [(3.0, 1.0), (2.0, 1.1), (5.0, 1.3), (2.5, 0.7)]
    every = [
        sum(pair[0] for pair in resample) / sum(pair[1] for pair in resample)
        for resample in itertools.product(pairs, repeat=4)
    ]
    _, interval = paired_bootstrap_speedup(*paired(pairs), n_resamples=40_000)
    assert interval == pytest.approx(np.percentile(every, [2.5, 97.5]), rel=0.01)


def test_interval_covers_the_true_ratio_in_about_95_of_100_experiments() -> None:
    generator = torch.Generator().manual_seed(1)
    covered = 0
    for experiment in range(200):
        arm = 1 + torch.rand(60, generator=generator, dtype=torch.float64)
        noise = 1 + 0.3 * torch.rand(60, generator=generator, dtype=torch.float64)
        _, (low, high) = paired_bootstrap_speedup(2 / 1.15 * noise * arm, arm, n_resamples=400, seed=experiment)
        covered += low <= 2 <= high
    assert 180 <= covered <= 198


def test_many_units_are_drawn_in_parts() -> None:
    reference = torch.linspace(1, 2, 300_000, dtype=torch.float64)
    speedup, (low, high) = paired_bootstrap_speedup(reference, torch.ones_like(reference), n_resamples=30)
    assert speedup == pytest.approx(1.5)
    assert 1.49 < low < 1.5 < high < 1.51
    assert low < high


@given(pairs=_PAIRS, data=st.data())
def test_metric_ignores_the_order_of_units_and_adds_up_repetitions(
    pairs: list[tuple[float, float]], data: st.DataObject
) -> None:
    rows = [(unit, reference, arm) for unit, (reference, arm) in enumerate(pairs)]
    metric = Speedup(n_resamples=50, seed=3)
    for row in data.draw(st.permutations(rows + rows)):
        metric.update(*row)
    metric.update(99, 1.0, 1.0, counted=torch.tensor([False, False]))
    reference, arm = paired(pairs)
    speedup, (low, high) = paired_bootstrap_speedup(2 * reference, 2 * arm, 50, seed=3)
    assert {name: value.item() for name, value in metric.compute().items()} == {
        "speedup": speedup,
        "low": low,
        "high": high,
        "median": pytest.approx(np.median([reference / arm for reference, arm in pairs])),
    }


def test_a_slow_unit_moves_the_ratio_of_totals_but_not_the_median() -> None:
    metric = Speedup(n_resamples=50)
    for unit in range(9):
        metric.update(unit, reference_seconds=2.0, arm_seconds=1.0 if unit else 30.0)
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found["speedup"] < 0.5
    assert found["median"] == 2.0


def test_no_unit_gives_nan() -> None:
    metric = Speedup()
    metric.update(0, 1.0, 1.0, counted=torch.tensor([False]))
    assert all(math.isnan(value.item()) for value in metric.compute().values())


@pytest.mark.parametrize(
    ("reference", "arm", "message"),
    [
        ([1.0, 2.0], [1.0], "expected the same units"),
        ([], [], "at least one"),
        ([1.0, 0.0], [1.0, 1.0], "1 times such as 0.0 s"),
        ([1.0], [math.inf], "1 times such as inf s"),
    ],
)
def test_impossible_times_are_refused(reference: list[float], arm: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        paired_bootstrap_speedup(torch.tensor(reference), torch.tensor(arm))


def test_metric_refuses_impossible_times_when_they_are_added() -> None:
    with pytest.raises(InputError, match=r"1 times such as -1\.0 s"):
        Speedup().update(0, 1.0, -1.0)
    with pytest.raises(InputError, match="0 bootstrap resamples"):
        paired_bootstrap_speedup(torch.ones(1), torch.ones(1), n_resamples=0)
