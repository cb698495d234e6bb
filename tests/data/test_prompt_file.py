import json
import logging
from pathlib import Path

import pytest

from padrec.catalog import InputError
from padrec.data.prompt_file import read_prompt_file
from tests.data.toy_data import toy_catalog


def write(folder: Path, *rows: object) -> Path:
    path = folder / "users.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_users_are_read_in_order_with_the_end_of_their_history(tmp_path: Path) -> None:
    path = write(tmp_path, {"user": "b", "history": ["i1", "i2", "i3"]}, {"user": 7, "history": ["i0"], "items": None})
    found = read_prompt_file(path, toy_catalog(), max_history=2)
    assert found.user_keys == ("b", "7")
    assert [found.histories.row(row).tolist() for row in range(2)] == [[2, 3], [0]]


def test_unknown_items_can_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(
        tmp_path,
        {"user": "a", "history": ["i1", "rare", "i2", "removed"]},
        {"user": "b", "history": ["rare"]},
        {"user": "c", "history": ["i3"]},
    )
    with caplog.at_level(logging.WARNING):
        found = read_prompt_file(path, toy_catalog(), max_history=2, unknown_items="drop")
    assert found.user_keys == ("a", "c")
    assert [found.histories.row(row).tolist() for row in range(2)] == [[1, 2], [3]]
    assert "3 unknown items left out of the histories; 1 of 3 users have no others and get no list" in caplog.text


def test_somebody_has_to_be_left(tmp_path: Path) -> None:
    path = write(tmp_path, {"user": "a", "history": ["rare"]})
    with pytest.raises(InputError, match="no user has an item among the"):
        read_prompt_file(path, toy_catalog(), max_history=2, unknown_items="drop")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "empty, expected lines"),
        ("{", "line 1: no valid JSON"),
        ('["i1"]', "line 1: a JSON list"),
        ('{"history": ["i1"]}', 'line 1: "user" is None, expected a key'),
        ('{"user": true, "history": ["i1"]}', 'line 1: "user" is True, expected a key'),
        ('{"user": "a"}', "line 1: \"history\" of user 'a' is None"),
        ('{"user": "a", "history": []}', r"line 1: \"history\" of user 'a' is \[\], expected at least one item key"),
        ('{"user": "a", "history": "i1"}', "line 1: \"history\" of user 'a' is 'i1'"),
        (
            '{"user": "a", "history": ["i1", "x"]}',
            "line 1: \"history\" of user 'a': item 'x' is not among .* unknown_items: drop leaves others out",
        ),
    ],
)
def test_wrong_lines_are_refused_with_their_place(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "users.jsonl"
    path.write_text(line)
    with pytest.raises(InputError, match=message) as caught:
        read_prompt_file(path, toy_catalog(), max_history=2)
    assert str(path) in str(caught.value)
