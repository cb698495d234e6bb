import torch
from hypothesis import given
from hypothesis import strategies as st

from padrec.data import ItemSequences

rows_strategy = st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=6)


def as_lists(sequences: ItemSequences) -> list[list[int]]:
    return [sequences.row(row).tolist() for row in range(len(sequences))]


@given(rows_strategy)
def test_rows_come_back_as_they_were_packed(rows: list[list[int]]) -> None:
    sequences = ItemSequences.from_lists(rows)
    assert as_lists(sequences) == rows
    assert sequences.lengths.tolist() == [len(row) for row in rows]


@given(rows_strategy, st.integers(1, 4))
def test_last_keeps_the_end_of_every_row(rows: list[list[int]], count: int) -> None:
    assert as_lists(ItemSequences.from_lists(rows).last(count)) == [row[-count:] for row in rows]


@given(st.lists(st.tuples(st.lists(st.integers(0, 9), max_size=4), st.lists(st.integers(0, 9), max_size=4))))
def test_followed_by_joins_row_by_row(pairs: list[tuple[list[int], list[int]]]) -> None:
    first = ItemSequences.from_lists([a for a, _ in pairs])
    second = ItemSequences.from_lists([b for _, b in pairs])
    assert as_lists(first.followed_by(second)) == [a + b for a, b in pairs]


@given(rows_strategy, rows_strategy)
def test_appended_puts_rows_below(first: list[list[int]], second: list[list[int]]) -> None:
    joined = ItemSequences.from_lists(first).appended(ItemSequences.from_lists(second))
    assert as_lists(joined) == first + second


@given(rows_strategy, st.data())
def test_select_takes_rows_in_the_order_asked_for(rows: list[list[int]], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1))) if rows else []
    selected = ItemSequences.from_lists(rows).select(torch.tensor(chosen, dtype=torch.long))
    assert as_lists(selected) == [rows[row] for row in chosen]


@given(rows_strategy)
def test_padded_fills_with_minus_one(rows: list[list[int]]) -> None:
    width = max(map(len, rows), default=0)
    expected = [row + [-1] * (width - len(row)) for row in rows]
    assert ItemSequences.from_lists(rows).padded().tolist() == expected
