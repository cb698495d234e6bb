import math
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from padrec.evaluation.arm_numbers import ArmNumbers, column
from tests.evaluation.toy_comparison import toy_metrics


def test_numbers_are_named_by_their_path_and_keep_their_intervals() -> None:
    found = ArmNumbers.of(toy_metrics(2.5, 6) | {"ndcg@5": math.nan, "empty_ci95": None})
    assert found.values["latency_ms/p50"] == 40.0
    assert found.intervals == {"speedup": (2.4, 2.65)}
    assert "ndcg@5" not in found.values
    assert "acceptance_by_slot" not in found.values


@given(st.lists(st.floats(0, 100), min_size=2, max_size=6))
def test_seeds_are_averaged_with_students_interval(sample: list[float]) -> None:
    found = ArmNumbers.over_seeds([ArmNumbers({"speedup": value}, {"speedup": (0.0, 1.0)}) for value in sample])
    error = stats.sem(sample)
    low, high = stats.t.interval(0.95, len(sample) - 1, fmean(sample), error) if error else (fmean(sample),) * 2
    assert found.values["speedup"] == pytest.approx(fmean(sample))
    assert found.intervals["speedup"] == pytest.approx((low, high), abs=1e-9)


def test_a_single_seed_keeps_the_interval_over_users() -> None:
    numbers = ArmNumbers.of(toy_metrics(2.5, 6))
    assert ArmNumbers.over_seeds([numbers]) is numbers


def test_only_numbers_of_all_seeds_are_combined() -> None:
    found = ArmNumbers.over_seeds([ArmNumbers({"a": 1.0, "b": 1.0}, {}), ArmNumbers({"a": 3.0}, {})])
    assert found.values == {"a": 2.0}


@pytest.mark.parametrize(
    ("key", "heading", "cell"),
    [
        ("speedup", "speedup (95 %)", "2.50 (2.40 – 2.65)"),
        ("speedup_over_generate", "over generate", "–"),
        ("identical_lists", "identical", "100%"),
        ("latency_ms/p95", "p95 ms", "52.0"),
        ("prefill_seconds", "prefill_seconds", "5"),
        ("nonsense", "nonsense", "–"),
    ],
)
def test_a_column_shows_a_number_with_its_interval(key: str, heading: str, cell: str) -> None:
    shown = column(key)
    assert (shown.heading, shown.cell(ArmNumbers.of(toy_metrics(2.5, 6)))) == (heading, cell)
