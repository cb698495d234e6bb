import pytest

from padrec.catalog import InputError
from padrec.data import ItemSequences, LoggedSequences, Split
from tests.data.toy_data import toy_catalog

NOTHING = ItemSequences.from_lists([[], []])
LAST = ItemSequences.from_lists([[5], [7]])


def test_training_items_alone_are_cut_into_rows() -> None:
    train = ItemSequences.from_lists([[0, 1, 2, 3, 4], [6]])
    split = Split(("a", "b"), train, LAST, NOTHING)
    windows = LoggedSequences().windows(split, toy_catalog(), max_history=2, list_length=2)
    rows = zip(windows.starts.tolist(), windows.ends.tolist(), strict=True)
    assert [windows.sequences.items[start:end].tolist() for start, end in rows] == [[0, 1, 2, 3], [2, 3, 4], [6]]
    assert not windows.lists.any()


def test_users_without_training_items_are_refused() -> None:
    with pytest.raises(InputError, match="no user has items to train on"):
        LoggedSequences().windows(Split(("a", "b"), NOTHING, NOTHING, LAST), toy_catalog(), 2, 2)
