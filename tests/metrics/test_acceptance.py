import math
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from padrec.catalog import InputError
from padrec.metrics import AcceptanceLength, AcceptanceRate, AcceptedLengths, AcceptedPerPass

_N_SLOTS, _MAX_DEPTH = 3, 4
# A round: the slots of the draft tokens that verification reached, depth 1 first, and how many it accepted.
_ROUND = st.lists(st.integers(0, _N_SLOTS - 1), max_size=_MAX_DEPTH).flatmap(
    lambda slots: st.tuples(st.just(slots), st.integers(max(0, len(slots) - 1), len(slots)))
)
Round = tuple[list[int], int]
Row = tuple[list[Round], bool]  # the rounds of a list, and whether it counts
_BATCH = st.lists(st.tuples(st.lists(_ROUND, max_size=4), st.booleans()), min_size=1, max_size=4)


def counts_of(rows: list[Row]) -> dict[str, torch.Tensor]:
    """What a decoder would have counted for each row."""
    attempted = torch.zeros(len(rows), _N_SLOTS, _MAX_DEPTH, dtype=torch.int64)
    accepted, lengths = attempted.clone(), torch.zeros(len(rows), _MAX_DEPTH + 1, dtype=torch.int64)
    for row, (rounds, _) in enumerate(rows):
        for slots, n_accepted in rounds:
            lengths[row, n_accepted] += 1
            for depth, slot in enumerate(slots):
                attempted[row, slot, depth] += 1
                accepted[row, slot, depth] += depth < n_accepted
    return {
        "tokens": 1 + torch.tensor([sum(n_accepted + 1 for _, n_accepted in rounds) for rounds, _ in rows]),
        "target_passes": torch.tensor([len(rounds) for rounds, _ in rows]),
        "attempted": attempted,
        "accepted": accepted,
        "accepted_lengths": lengths,
        "counted": torch.tensor([counted for _, counted in rows]),
    }


def ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


@given(batches=st.lists(_BATCH, min_size=1, max_size=3))
def test_lengths_equal_the_reference(batches: list[list[Row]]) -> None:
    length, per_pass, histogram = AcceptanceLength(), AcceptedPerPass(), AcceptedLengths(_MAX_DEPTH)
    for batch in batches:
        counts = counts_of(batch)
        length.update(counts["tokens"], counts["target_passes"], counts["counted"])
        per_pass.update(counts["accepted_lengths"], counts["counted"])
        histogram.update(counts["accepted_lengths"], counts["counted"])
    accepted = [n for batch in batches for rounds, counted in batch if counted for _, n in rounds]
    expected = ratio(sum(accepted), len(accepted))
    assert per_pass.compute().item() == pytest.approx(expected, nan_ok=True)
    assert length.compute().item() == pytest.approx(expected + 1, nan_ok=True)
    assert histogram.compute().tolist() == [accepted.count(n) for n in range(_MAX_DEPTH + 1)]


@given(batches=st.lists(_BATCH, min_size=1, max_size=3))
def test_rates_equal_the_reference(batches: list[list[Row]]) -> None:
    kinds: tuple[Literal["slot", "depth", "slot_and_depth"], ...] = ("slot", "depth", "slot_and_depth")
    rates = {by: AcceptanceRate(_N_SLOTS, _MAX_DEPTH, by) for by in kinds}
    for batch in batches:
        counts = counts_of(batch)
        for rate in rates.values():
            rate.update(counts["attempted"], counts["accepted"], counts["counted"])
    tried = [
        (slot, depth, depth < n_accepted)
        for batch in batches
        for rounds, counted in batch
        if counted
        for slots, n_accepted in rounds
        for depth, slot in enumerate(slots)
    ]

    def share(slots: range, depths: range) -> float:
        hits = [hit for slot, depth, hit in tried if slot in slots and depth in depths]
        return ratio(sum(hits), len(hits))

    slots = [range(slot, slot + 1) for slot in range(_N_SLOTS)]
    depths = [range(depth, depth + 1) for depth in range(_MAX_DEPTH)]
    by_slot = [share(slot, range(_MAX_DEPTH)) for slot in slots]
    by_depth = [share(range(_N_SLOTS), depth) for depth in depths]
    both = [share(slot, depth) for slot in slots for depth in depths]
    assert rates["slot"].compute().tolist() == pytest.approx(by_slot, nan_ok=True)
    assert rates["depth"].compute().tolist() == pytest.approx(by_depth, nan_ok=True)
    assert rates["slot_and_depth"].compute().flatten().tolist() == pytest.approx(both, nan_ok=True)


@given(batch=_BATCH)
def test_counts_summed_over_the_batch_give_the_same_as_counts_of_rows(batch: list[Row]) -> None:
    counts = counts_of([(rounds, True) for rounds, _ in batch])
    by_row, summed = AcceptanceRate(_N_SLOTS, _MAX_DEPTH, "slot"), AcceptanceRate(_N_SLOTS, _MAX_DEPTH, "slot")
    by_row.update(counts["attempted"], counts["accepted"])
    summed.update(counts["attempted"].sum(0), counts["accepted"].sum(0), counts["counted"])
    torch.testing.assert_close(by_row.compute(), summed.compute(), rtol=0, atol=0, equal_nan=True)


def test_without_a_draft_one_token_is_emitted_per_pass() -> None:
    length, per_pass, histogram = AcceptanceLength(), AcceptedPerPass(), AcceptedLengths(max_depth=0)
    rate = AcceptanceRate(_N_SLOTS, max_depth=0, by="depth")
    length.update(tokens=torch.tensor([8, 8]), target_passes=torch.tensor([7, 7]))
    per_pass.update(torch.tensor([14]))
    histogram.update(torch.tensor([14]))
    rate.update(torch.zeros(_N_SLOTS, 0, dtype=torch.int64), torch.zeros(_N_SLOTS, 0, dtype=torch.int64))
    assert (length.compute().item(), per_pass.compute().item()) == (1, 0)
    assert histogram.compute().tolist() == [14]
    assert rate.compute().tolist() == []


@pytest.mark.parametrize("depth", [1, 3])
def test_counts_of_another_depth_are_refused(depth: int) -> None:
    histogram, rate = AcceptedLengths(max_depth=2), AcceptanceRate(n_slots=1, max_depth=2, by="depth")
    for rows in ((), (2,)):
        with pytest.raises(InputError, match="expected 3 in the last dimension"):
            histogram.update(torch.zeros(*rows, depth + 1, dtype=torch.int64))
        with pytest.raises(InputError, match="expected the same shape, with 1 slots and 2 depths"):
            rate.update(torch.zeros(*rows, 1, depth), torch.zeros(*rows, 1, depth))


def test_rows_cannot_be_left_out_of_counts_summed_over_the_batch() -> None:
    with pytest.raises(InputError, match="1 rows are not to be counted"):
        AcceptedPerPass().update(torch.tensor([3, 4]), counted=torch.tensor([True, False]))


def test_wrong_shapes_and_names_are_refused() -> None:
    with pytest.raises(InputError, match="differ in shape"):
        AcceptanceLength().update(torch.tensor([4, 4]), torch.tensor([1]))
    with pytest.raises(InputError, match="2 slots"):
        AcceptanceRate(2, 1, "slot").update(torch.zeros(3, 1), torch.zeros(3, 1))
    with pytest.raises(InputError, match="expected 1 dimensions"):
        AcceptedLengths(2).update(torch.zeros(1, 1, 1))
    with pytest.raises(InputError, match="'step', expected one of slot, depth"):
        AcceptanceRate(2, 1, "step")  # type: ignore[arg-type]
