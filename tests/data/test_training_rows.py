from pathlib import Path

from padrec.catalog import SemanticIDVocabulary
from padrec.data import ItemSequences, PromptTemplate
from padrec.data.sequence_encoder import SequenceEncoder
from padrec.data.training_rows import FILLER_ROW, TrainingRows
from padrec.data.windows import cut_windows
from tests.data.toy_data import toy_catalog
from tests.tiny_language_model import save_tiny_tokenizer


def make_rows() -> TrainingRows:
    sequences = ItemSequences.from_lists([[0, 1, 2, 3, 4, 6, 7], [5]])
    encoder = SequenceEncoder(SemanticIDVocabulary((3, 3)), toy_catalog())
    return TrainingRows(cut_windows(sequences, max_history=2, list_length=2), encoder)


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
    rows = TrainingRows(cut_windows(sequences, max_history=2, list_length=2), encoder, seed=3)
    places = [  # items before the text, of every row
        rows[row].tokens[0].tolist().index(template.closing[0]) // 3 for row in range(len(rows))
    ]
    # Windows with history, the one of a single item, and random places that leave at least one item on either side.
    assert places[1:4] == [2, 2, 1]
    assert set(places[4:]) == {1, 2, 3}
    assert rows[4].supervised[0].sum() == 4 * 3
    again = TrainingRows(rows.windows, encoder, seed=3)
    assert all(rows[row].tokens.equal(again[row].tokens) for row in range(len(rows)))
