import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from padrec.catalog import InputError
from padrec.metrics import Latency, latency_percentiles

_BATCHES = st.lists(st.tuples(st.floats(0, 10), st.lists(st.booleans(), min_size=1, max_size=4)), min_size=1)


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
def test_impossible_times_are_refused(seconds: float) -> None:
    with pytest.raises(InputError, match="expected 0 s or more"):
        Latency().update(seconds, torch.tensor([True]))
