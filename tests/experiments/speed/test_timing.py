from itertools import count

import pytest
import torch

from experiments.speed.timing import Timing, Work, interleaved_seconds, timed

_CPU = torch.device("cpu")


def test_works_are_measured_in_turn_each_after_its_preparation() -> None:
    calls: list[str] = []
    works = {
        "a": Work(lambda: calls.append("a"), calls=2, before=lambda: calls.append("before a")),
        "b": Work(lambda: calls.append("b")),
    }
    seconds = interleaved_seconds(works, _CPU, repeats=3)
    assert {name: len(found) for name, found in seconds.items()} == {"a": 3, "b": 3}
    a = ["before a", "a", "a"]
    assert calls == [*a, "b", *a, "b", "b", *a, *a, "b", "b", *a]


def test_a_timing_is_the_median_with_an_interval_around_it() -> None:
    timing = Timing.of(torch.tensor([5.0, 1.0, 2.0, 3.0, 4.0], dtype=torch.float64))
    assert (timing.median, timing.repeats) == (3.0, 5)
    assert 1.0 <= timing.low < 3.0 < timing.high <= 5.0
    assert Timing.of(torch.tensor([5.0, 1.0, 2.0, 3.0, 4.0], dtype=torch.float64)) == timing


def test_a_ratio_of_what_varies_together_has_a_narrow_interval() -> None:
    values = torch.rand(20, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    ratio = Timing.of(2 * values, values)
    assert [ratio.median, ratio.low, ratio.high] == pytest.approx([2, 2, 2])
    assert ratio.to_dict("ratio")["ratio"] == ratio.median


def test_what_happens_once_is_timed_too() -> None:
    calls = count()
    result, seconds = timed(lambda: next(calls), _CPU)
    assert (result, next(calls)) == (0, 1)
    assert seconds >= 0
