import json
import logging
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from padrec.catalog import Catalog, InputError, SemanticIDVocabulary
from padrec.data import ItemSequences, Split
from padrec.data.prompts import PromptRows, evaluation_prompts, random_cut_prompts, read_prompt_file
from padrec.data.sequence_encoder import SequenceEncoder
from tests.data.toy_data import toy_catalog


def prompt_rows(
    histories: list[list[int]], truth: list[list[int]], multiple_of: int = 1, list_marker: bool = False
) -> PromptRows:
    catalog = toy_catalog()
    encoder = SequenceEncoder(SemanticIDVocabulary((3, 3)), catalog, list_marker=list_marker)
    users = torch.arange(len(histories)) + 10
    packed = (ItemSequences.from_lists(histories), ItemSequences.from_lists(truth))
    return PromptRows(*packed, users, catalog, encoder, multiple_of)


def test_a_prompt_ends_with_the_separator_and_holds_its_history() -> None:
    batch = prompt_rows([[1, 2], [3]], [[0], [0]]).__getitems__([0, 1])
    assert batch.lengths.tolist() == [7, 4]
    last = batch.tokens[torch.arange(2), batch.lengths - 1]
    assert last.tolist() == [SemanticIDVocabulary((3, 3)).separator_token] * 2
    assert batch.history.tolist() == [[1, 2], [3, -1]]
    assert batch.users.tolist() == [10, 11]


def test_a_marker_ends_every_prompt() -> None:
    plain, marked = (
        prompt_rows([[1, 2], [3]], [[0], [0]], list_marker=on).__getitems__([0, 1]) for on in (False, True)
    )
    assert marked.lengths.tolist() == [8, 5]
    vocabulary = SemanticIDVocabulary((3, 3))
    for row, length in enumerate(plain.lengths.tolist()):
        assert marked.tokens[row, : length + 1].tolist() == [*plain.tokens[row, :length].tolist(), vocabulary.eos_token]
        assert marked.tokens[row, length + 1 :].eq(vocabulary.pad_token).all()
        assert marked.slots[row, length:].eq(vocabulary.other_slot).all()


def test_ground_truth_is_given_once_by_leaf_and_by_item() -> None:
    leaf = toy_catalog().leaf_of_item.tolist()
    batch = prompt_rows([[1], [2]], [[4, 7, 5, 4], [0]]).__getitems__([0, 1])
    assert batch.relevant_items.tolist() == [[4, 7, 5, -1], [0, -1, -1, -1]]
    assert batch.relevant.tolist() == [[leaf[4], leaf[7], -1, -1], [leaf[0], -1, -1, -1]]


def test_rows_that_fill_the_set_up_are_not_counted() -> None:
    rows = prompt_rows([[1], [2], [3], [4], [5]], [[0]] * 5, multiple_of=4)
    assert len(rows) == 8
    batch = rows.__getitems__(list(range(8)))
    assert batch.counted.tolist() == [True] * 5 + [False] * 3
    assert (batch.relevant[5:] == -1).all()
    assert (batch.relevant_items[5:] == -1).all()


def test_only_users_with_history_and_truth_are_evaluated() -> None:
    train = ItemSequences.from_lists([[1, 2, 3], [4], []])
    validation = ItemSequences.from_lists([[], [5], []])
    test = ItemSequences.from_lists([[6, 7], [], [0]])
    split = Split(("a", "b", "c"), train, validation, test)
    histories, truth, users = evaluation_prompts(split, "validation", max_history=2)
    assert (users.tolist(), histories.row(0).tolist(), truth.row(0).tolist()) == ([1], [4], [5])
    histories, truth, users = evaluation_prompts(split, "test", max_history=2)
    assert (users.tolist(), histories.row(0).tolist(), truth.row(0).tolist()) == ([0], [2, 3], [6, 7])


@given(st.lists(st.integers(0, 7), min_size=1, max_size=6), st.integers(1, 4), st.integers(1, 5))
def test_random_cuts_are_different_and_within_the_sequence(lengths: list[int], cuts: int, max_history: int) -> None:
    rows = [[100 * user + position for position in range(length)] for user, length in enumerate(lengths)]
    generator = torch.Generator().manual_seed(0)
    histories, users = random_cut_prompts(ItemSequences.from_lists(rows), cuts, max_history, generator)
    assert users.tolist() == [user for user, length in enumerate(lengths) for _ in range(min(cuts, length))]
    found = [tuple(histories.row(row).tolist()) for row in range(len(histories))]
    assert len(set(found)) == len(found)
    for user, history in zip(users.tolist(), found, strict=True):
        cut = history[-1] - 100 * user + 1
        assert list(history) == rows[user][max(0, cut - max_history) : cut]


def test_cut_points_are_uniform() -> None:
    train = ItemSequences.from_lists([[0, 1, 2, 3]] * 4000)
    histories, _ = random_cut_prompts(train, 1, 10, torch.Generator().manual_seed(0))
    counts = histories.lengths.bincount(minlength=5)[1:]
    assert ((counts - 1000).abs() < 120).all()  # over four standard deviations


def write(folder: Path, *rows: object) -> Path:
    path = folder / "users.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_users_are_read_in_order_with_the_end_of_their_history(tmp_path: Path) -> None:
    path = write(tmp_path, {"user": "b", "history": ["i1", "i2", "i3"]}, {"user": 7, "history": ["i0"], "items": None})
    users, histories = read_prompt_file(path, toy_catalog(), max_history=2)
    assert users == ("b", "7")
    assert [histories.row(row).tolist() for row in range(2)] == [[2, 3], [0]]


def test_unknown_items_can_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(
        tmp_path,
        {"user": "a", "history": ["i1", "rare", "i2", "removed"]},
        {"user": "b", "history": ["rare"]},
        {"user": "c", "history": ["i3"]},
    )
    with caplog.at_level(logging.WARNING):
        users, histories = read_prompt_file(path, toy_catalog(), max_history=2, unknown_items="drop")
    assert users == ("a", "c")
    assert [histories.row(row).tolist() for row in range(2)] == [[1, 2], [3]]
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


def test_thousands_of_relevant_items_take_no_square_of_memory() -> None:
    # 20,000 × 20,000 comparisons of a batch of 64 would take 26 GB.
    many = ItemSequences.from_lists([[7, 5, 7, *range(20_000)]] * 64)
    catalog = Catalog(torch.arange(20_000)[:, None], [f"i{item}" for item in range(20_000)])
    encoder = SequenceEncoder(SemanticIDVocabulary(catalog.codebook_sizes), catalog)
    prompts = PromptRows(ItemSequences.from_lists([[1]] * 64), many, torch.arange(64), catalog, encoder)
    batch = prompts.__getitems__(list(range(64)))
    assert batch.relevant_items[0, :4].tolist() == [7, 5, 0, 1]
    assert (batch.relevant >= 0).sum(1).tolist() == [20_000] * 64
