import pytest

from experiments.ablations.table import gain


def test_the_gain_is_that_of_tokens_per_pass() -> None:
    base = [{"tokens": [40, 40], "passes": [10, 10]}, {"tokens": [40, 40], "passes": [8, 12]}]
    faster = [{"tokens": [40, 40], "passes": [8, 8]}, {"tokens": [40, 40], "passes": [6, 10]}]
    found, low, high = gain(faster, base)
    assert found == pytest.approx(40 / 32 - 1)
    assert 0 < low <= found <= high
    assert gain(base, base) == [0, 0, 0]


def test_seeds_that_differ_widen_the_interval() -> None:
    base = [{"tokens": [40] * 50, "passes": [10] * 50}] * 3
    _, low, high = gain([{"tokens": [40] * 50, "passes": [n] * 50} for n in (8, 10, 12)], base)
    assert high - low > 0.1
    _, low, high = gain([{"tokens": [40] * 50, "passes": [9] * 50}] * 3, base)
    assert high == pytest.approx(low)
