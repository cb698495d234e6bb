from hypothesis import given
from hypothesis import strategies as st

from padrec.data import ItemSequences
from padrec.data.windows import Windows, cut_windows, list_windows


def plain_windows(length: int, max_history: int, list_length: int) -> list[tuple[int, int, int]]:
    """(start, first supervised, end) of the windows of one sequence, one after the other."""
    windows = []
    start = 0
    supervised = 0
    while supervised < length:
        end = min(start + max_history + list_length, length)
        windows.append((start, supervised, end))
        supervised = end
        start = supervised - max_history
    return windows


def triples(windows: Windows) -> list[tuple[int, int, int]]:
    columns = (windows.starts.tolist(), windows.supervised_from.tolist(), windows.ends.tolist())
    return list(zip(*columns, strict=True))


shapes = st.tuples(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(1, 8), st.integers(1, 6))


@given(shapes)
def test_windows_equal_the_plain_reference(shape: tuple[list[int], int, int]) -> None:
    lengths, max_history, list_length = shape
    sequences = ItemSequences.from_lists([list(range(length)) for length in lengths])
    expected = []
    for offset, length in zip(sequences.starts.tolist(), lengths, strict=True):
        plain = plain_windows(length, max_history, list_length)
        expected += [(a + offset, b + offset, c + offset) for a, b, c in plain]
    assert triples(cut_windows(sequences, max_history, list_length)) == expected


@given(shapes)
def test_every_position_is_supervised_once_with_its_history(shape: tuple[list[int], int, int]) -> None:
    lengths, max_history, list_length = shape
    sequences = ItemSequences.from_lists([list(range(length)) for length in lengths])
    supervised = []
    for start, first, end in triples(cut_windows(sequences, max_history, list_length)):
        assert end - start <= max_history + list_length
        for position in range(first, end):
            cut = int(sequences.items[position])  # the items of each row count its positions
            assert min(cut, max_history) <= position - start <= cut
            supervised.append(position)
    assert sorted(supervised) == list(range(sum(lengths)))


def test_list_windows_supervise_the_list_alone() -> None:
    windows = list_windows(ItemSequences.from_lists([[1, 2], [3]]), ItemSequences.from_lists([[4], [5, 6]]))
    assert windows.sequences.items.tolist() == [1, 2, 4, 3, 5, 6]
    assert triples(windows) == [(0, 2, 3), (3, 4, 6)]


def test_appended_windows_keep_their_items() -> None:
    first = cut_windows(ItemSequences.from_lists([[1, 2]]), 4, 2)
    second = list_windows(ItemSequences.from_lists([[3]]), ItemSequences.from_lists([[4]]))
    joined = first.appended(second)
    found = [joined.sequences.items[start:end].tolist() for start, _, end in triples(joined)]
    assert found == [[1, 2], [3, 4]]
    assert joined.supervised_from.tolist() == [0, 3]
