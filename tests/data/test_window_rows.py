from pathlib import Path

from padrec.catalog import SemanticIDVocabulary
from padrec.data import ItemSequences, PromptTemplate
from padrec.data.sequence_encoder import SequenceEncoder
from padrec.data.window_rows import FILLER_ROW, WindowRows
from padrec.data.windows import cut_windows, list_windows
from tests.data.toy_data import toy_catalog
from tests.tiny_language_model import save_tiny_tokenizer


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


def test_a_marker_stands_behind_the_text_of_generated_lists_alone(tmp_path: Path) -> None:
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
