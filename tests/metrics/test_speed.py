import math

import pytest
import torch

from padrec.catalog import InputError
from padrec.metrics import Speed


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
