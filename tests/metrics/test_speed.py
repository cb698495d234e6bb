import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from padrec.catalog import InputError
from padrec.metrics import Latency, Speed, latency_percentiles

_BATCHES = st.lists(st.tuples(st.floats(0, 10), st.lists(st.booleans(), min_size=1, max_size=4)), min_size=1)


def test_totals_and_rates_leave_padding_rows_out() -> None:
    metric = Speed()
    metric.update(0.5, 0.1, torch.tensor([10, 12]))
    metric.update(0.3, 0.1, torch.tensor([10, 99]), torch.tensor([True, False]))
    metric.update(9.0, 1.0, torch.tensor([99, 99]), torch.tensor([False, False]))  # nobody waited for this batch
    values = {name: value.item() for name, value in metric.compute().items()}
    assert values == pytest.approx(
        {
            "seconds": 0.8,
            "prefill_seconds": 0.2,
            "tokens": 32,
            "lists": 3,
            "tokens_per_second": 32 / 0.8,
            "lists_per_second": 3 / 0.8,
        },
        rel=1e-12,
    )


def test_seconds_are_summed_in_float64() -> None:
    metric = Speed()
    metric.update(1e6, 0.0, torch.tensor([1]))
    metric.update(1e-6, 0.0, torch.tensor([1]))
    assert metric.compute()["seconds"].item() == 1e6 + 1e-6


def test_no_batch_gives_nan() -> None:
    metric = Speed()
    metric.update(1.0, 0.5, torch.tensor([4]), torch.tensor([False]))
    assert math.isnan(metric.compute()["tokens_per_second"].item())


@pytest.mark.parametrize(("seconds", "prefill_seconds"), [(1.0, 2.0), (1.0, -0.1), (math.nan, 0.0)])
def test_impossible_times_are_refused(seconds: float, prefill_seconds: float) -> None:
    with pytest.raises(InputError, match="expected 0 ≤ prefill ≤ batch"):
        Speed().update(seconds, prefill_seconds, torch.tensor([1]))


@given(batches=_BATCHES)
def test_every_counted_user_waits_for_its_whole_batch(batches: list[tuple[float, list[bool]]]) -> None:
    metric = Latency()
    for seconds, counted in batches:
        metric.update(seconds, torch.tensor(counted))
    expected = sorted(1000 * seconds for seconds, counted in batches for row in counted if row)
    assert metric.compute().tolist() == expected
    percentiles = latency_percentiles(metric.compute())
    if expected:
        reference = np.percentile(expected, [50, 95, 99])
        assert list(percentiles.values()) == pytest.approx(list(reference))
    else:
        assert all(math.isnan(value) for value in percentiles.values())
    assert list(percentiles) == ["p50", "p95", "p99"]


@pytest.mark.parametrize("seconds", [-1.0, math.nan])
def test_negative_latencies_are_refused(seconds: float) -> None:
    with pytest.raises(InputError, match="expected 0 s or more"):
        Latency().update(seconds, torch.tensor([True]))
