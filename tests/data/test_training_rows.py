import json
from pathlib import Path

import pytest

from padrec.catalog import InputError
from padrec.data import GeneratedLists, ItemSequences, LoggedSequences, Split
from padrec.data.training_rows import read_generated_lists
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


def test_lists_are_read_with_the_end_of_their_history(tmp_path: Path) -> None:
    paths = []
    for number, items in enumerate((["i4", "i0"], ["i6"])):
        row = {"user": "new", "history": ["i1", "i2", "i3"], "items": items}
        paths.append(tmp_path / f"{number}.jsonl")
        paths[-1].write_text(json.dumps(row) + "\n")
    histories, lists = read_generated_lists([str(path) for path in paths], toy_catalog(), max_history=2, list_length=2)
    assert [histories.row(row).tolist() for row in range(2)] == [[2, 3], [2, 3]]
    assert [lists.row(row).tolist() for row in range(2)] == [[4, 0], [6]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "empty, expected lines"),
        ("{", "line 1: no valid JSON"),
        ("[]", "line 1: a JSON list"),
        ('{"user": "a", "items": ["i1"]}', 'line 1: "history" is None'),
        ('{"user": "a", "history": ["i1"], "items": []}', r'line 1: "items" is \[\]'),
        ('{"user": "a", "history": ["i1"], "items": ["i9"]}', "line 1: \"items\": item 'i9' is not among"),
        ('{"user": "a", "history": ["x"], "items": ["i1"]}', "line 1: \"history\": item 'x' is not among"),
        ('{"user": "a", "history": ["i1"], "items": ["i1", null]}', 'line 1: "items" has null'),
        ('{"user": "a", "history": ["i1"], "items": ["i1", "i2", "i3"]}', "a list of 3 items, expected at most"),
    ],
)
def test_wrong_lines_are_refused_with_their_place(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "lists.jsonl"
    path.write_text(line)
    with pytest.raises(InputError, match=message) as caught:
        read_generated_lists([str(path)], toy_catalog(), max_history=2, list_length=2)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: no such file"):
        read_generated_lists([str(tmp_path / "none.jsonl")], toy_catalog(), max_history=2, list_length=2)


def test_rows_predict_the_list_from_its_history(tmp_path: Path) -> None:
    path = tmp_path / "lists.jsonl"
    path.write_text(json.dumps({"user": "u0", "history": ["i1", "i2", "i3"], "items": ["i4", "i0"]}) + "\n")
    nothing = ItemSequences.from_lists([[]])
    split = Split(("u0",), nothing, nothing, ItemSequences.from_lists([[7]]))
    windows = GeneratedLists([str(path)]).windows(split, toy_catalog(), max_history=2, list_length=2)
    assert windows.sequences.row(0).tolist() == [2, 3, 4, 0]
    assert windows.supervised_from.tolist() == [2]
    assert windows.lists.tolist() == [True]


def test_no_files_are_refused() -> None:
    with pytest.raises(InputError, match="no files of generated lists"):
        GeneratedLists([])
