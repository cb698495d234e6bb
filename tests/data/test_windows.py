from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from padrec.catalog import SemanticIDVocabulary
from padrec.data import ItemSequences, PromptTemplate
from padrec.data.sequence_encoder import SequenceEncoder
from padrec.data.training_rows import FILLER_ROW, WindowRows, Windows, cut_windows, list_windows
from tests.data.toy_data import toy_catalog
from tests.tiny_language_model import save_tiny_tokenizer


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


def make_rows() -> WindowRows:
    sequences = ItemSequences.from_lists([[0, 1, 2, 3, 4, 6, 7], [5]])
    encoder = SequenceEncoder(SemanticIDVocabulary((3, 3)), toy_catalog())
    return WindowRows(cut_windows(sequences, max_history=2, list_length=2), encoder)


def test_first_window_supervises_all_but_bos_and_padding() -> None:
    rows = make_rows()
    assert rows.lengths.tolist() == [4, 4, 3, 1]
    batch = rows[[0, 3]]
    assert batch.lengths.tolist() == [13, 4]
    assert batch.supervised[0].tolist() == [False] + [True] * 12
    assert batch.supervised[1].tolist() == [False] + [True] * 3 + [False] * 9


def test_every_code_and_separator_knows_its_item() -> None:
    batch = make_rows()[[0, 3]]
    assert batch.items[0].tolist() == [-1, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert batch.items[1].tolist() == [-1, 5, 5, 5] + [-1] * 9


def test_later_windows_leave_their_history_unsupervised() -> None:
    batch = make_rows()[[1]]
    assert batch.supervised[0].tolist() == [False] + [False] * 6 + [True] * 6
    assert batch.tokens[0, 1:7].tolist() == make_rows()[0].tokens[0, 7:13].tolist()


def test_a_filler_row_is_a_row_without_supervision() -> None:
    batch = make_rows()[[FILLER_ROW]]
    assert batch.tokens.shape[0] == 1
    assert batch.lengths.tolist() == [4]
    assert not batch.supervised.any()


def test_text_ends_the_history_where_the_list_begins(tmp_path: Path) -> None:
    save_tiny_tokenizer(tmp_path)
    template = PromptTemplate(str(tmp_path), "{history}|")
    vocabulary = SemanticIDVocabulary((3, 3), text_tokens=template.text_tokens, tokenizer=template.fingerprint)
    encoder = SequenceEncoder(vocabulary, toy_catalog(), template)
    sequences = ItemSequences.from_lists([[0, 1, 2, 3, 4, 6, 7], [5]] + [[0, 1, 2, 3]] * 40)
    rows = WindowRows(cut_windows(sequences, max_history=2, list_length=2), encoder, seed=3)
    places = [  # items before the text, of every row
        rows[row].tokens[0].tolist().index(template.closing[0]) // 3 for row in range(len(rows))
    ]
    # Windows with history, the one of a single item, and random places that leave at least one item on either side.
    assert places[1:4] == [2, 2, 1]
    assert set(places[4:]) == {1, 2, 3}
    assert rows[4].supervised[0].sum() == 4 * 3
    again = WindowRows(rows.windows, encoder, seed=3)
    assert all(rows[row].tokens.equal(again[row].tokens) for row in range(len(rows)))


def test_a_marker_stands_between_a_history_and_its_list_alone() -> None:
    logged = cut_windows(ItemSequences.from_lists([[0, 1, 2]]), max_history=2, list_length=2)
    lists = list_windows(ItemSequences.from_lists([[3]]), ItemSequences.from_lists([[6, 7]]))
    vocabulary = SemanticIDVocabulary((3, 3))
    encoders = (SequenceEncoder(vocabulary, toy_catalog(), list_marker=marker) for marker in (False, True))
    plain, marked = (WindowRows(logged.appended(lists), encoder)[[0, 1]] for encoder in encoders)
    assert marked.lengths.tolist() == [10, 11]
    # The row of what a user did only becomes as wide as the other.
    assert marked.tokens[0].tolist() == [*plain.tokens[0].tolist(), vocabulary.pad_token]
    assert marked.slots[0].tolist() == [*plain.slots[0].tolist(), vocabulary.other_slot]
    assert marked.supervised[0].tolist() == [*plain.supervised[0].tolist(), False]
    history, rest = plain.tokens[1, :4].tolist(), plain.tokens[1, 4:].tolist()
    assert marked.tokens[1].tolist() == [*history, vocabulary.eos_token, *rest]
    slots = plain.slots[1].tolist()
    assert marked.slots[1].tolist() == [*slots[:4], vocabulary.other_slot, *slots[4:]]
    assert marked.supervised[1].tolist() == [False] * 5 + [True] * 6


def test_a_marker_follows_the_text_of_generated_lists_alone(tmp_path: Path) -> None:
    save_tiny_tokenizer(tmp_path)
    template = PromptTemplate(str(tmp_path), "{history}|")
    vocabulary = SemanticIDVocabulary((3, 3), text_tokens=template.text_tokens, tokenizer=template.fingerprint)
    logged = cut_windows(ItemSequences.from_lists([[0, 1, 2, 3]]), max_history=2, list_length=2)
    lists = list_windows(ItemSequences.from_lists([[3, 0]]), ItemSequences.from_lists([[6, 7]]))
    encoders = (SequenceEncoder(vocabulary, toy_catalog(), template, marker) for marker in (False, True))
    plain, marked = (WindowRows(logged.appended(lists), encoder)[[0, 1]] for encoder in encoders)
    assert marked.lengths.tolist() == [14, 15]
    assert marked.tokens[0, :14].tolist() == plain.tokens[0].tolist()
    text, marker = template.closing, vocabulary.eos_token
    items = vocabulary.encode(toy_catalog().codes[[3, 0, 6, 7]]).flatten().tolist()
    assert marked.tokens[1].tolist() == [vocabulary.bos_token, *items[:6], *text, marker, *items[6:]]
    assert marked.supervised[1].tolist() == [False] * 9 + [True] * 6
    assert marked.supervised.sum(1).tolist() == plain.supervised.sum(1).tolist() == [12, 6]
