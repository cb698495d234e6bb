from padrec.catalog import SemanticIDVocabulary
from padrec.data import ItemSequences
from padrec.data.sequence_encoder import SequenceEncoder
from padrec.data.training_rows import FILLER_ROW, TrainingRows
from padrec.data.windows import cut_windows, list_windows
from tests.data.toy_data import toy_catalog


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


def test_a_marker_stands_between_a_history_and_its_list_alone() -> None:
    logged = cut_windows(ItemSequences.from_lists([[0, 1, 2]]), max_history=2, list_length=2)
    lists = list_windows(ItemSequences.from_lists([[3]]), ItemSequences.from_lists([[6, 7]]))
    encoder = SequenceEncoder(SemanticIDVocabulary((3, 3)), toy_catalog())
    plain, marked = (TrainingRows(logged.appended(lists), encoder, marker)[[0, 1]] for marker in (False, True))
    assert marked.lengths.tolist() == [10, 11]
    # The row of what a user did only becomes as wide as the other.
    assert marked.tokens[0].tolist() == [*plain.tokens[0].tolist(), 0]
    assert marked.slots[0].tolist() == [*plain.slots[0].tolist(), encoder.vocabulary.other_slot]
    assert marked.supervised[0].tolist() == [*plain.supervised[0].tolist(), False]
    history, rest = plain.tokens[1, :4].tolist(), plain.tokens[1, 4:].tolist()
    assert marked.tokens[1].tolist() == [*history, SemanticIDVocabulary.eos_token, *rest]
    slots = plain.slots[1].tolist()
    assert marked.slots[1].tolist() == [*slots[:4], encoder.vocabulary.other_slot, *slots[4:]]
    assert marked.supervised[1].tolist() == [False] * 5 + [True] * 6
