import pytest
from hypothesis import given
from hypothesis import strategies as st

from padrec.catalog import InputError
from padrec.data import Dataset, Interactions, ItemSequences, Split, leave_one_out
from tests.data.toy_data import toy_catalog


@pytest.mark.parametrize(
    ("users", "rows", "message"),
    [
        ((), [], "log: no users"),
        (("a", "b"), [[1]], "log: 2 user keys for 1 sequences"),
        (("a", "a"), [[1], [2]], "log: user key 'a' occurs 2 times"),
        (("a", "b"), [[1], []], r"log: 1 user \('b'\) without items"),
    ],
)
def test_users_that_cannot_be_used_are_refused(users: tuple[str, ...], rows: list[list[int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Interactions(users, ItemSequences.from_lists(rows), source="log")


def test_a_dataset_refuses_items_outside_its_catalog() -> None:
    log = Interactions(("a", "b"), ItemSequences.from_lists([[1], [2, 8]]), source="log")
    with pytest.raises(InputError, match=r"log: user 'b' has item index 8, expected 0 … 7"):
        Dataset("toy", toy_catalog(), log)


def interactions(rows: list[list[int]]) -> Interactions:
    users = tuple(f"u{user}" for user in range(len(rows)))
    return Interactions(users, ItemSequences.from_lists(rows), source="log.json")


@given(st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=8), min_size=1, max_size=5))
def test_leave_one_out_holds_the_last_two_items_back(rows: list[list[int]]) -> None:
    split = leave_one_out(interactions(rows))
    for user, row in enumerate(rows):
        assert split.train.row(user).tolist() == row[:-2]
        assert split.validation.row(user).tolist() == [row[-2]]
        assert split.test_history.row(user).tolist() == row[:-1]
        assert split.test.row(user).tolist() == [row[-1]]


def test_short_users_are_refused_by_name() -> None:
    rows = [[1, 2]] * 7 + [[1, 2, 3]]
    message = r"log.json: 7 users \('u0', 'u1', 'u2', 'u3', 'u4', …\) with fewer than 3 items.*short_users: drop"
    with pytest.raises(InputError, match=message):
        leave_one_out(interactions(rows))


def test_short_users_can_be_dropped() -> None:
    split = leave_one_out(interactions([[1, 2], [3, 4, 5]]), short_users="drop")
    assert split.user_keys == ("u1",)
    assert split.train.row(0).tolist() == [3]
    with pytest.raises(InputError, match="nobody is left"):
        leave_one_out(interactions([[1, 2]]), short_users="drop")


def test_a_split_needs_some_item_of_every_user() -> None:
    part = ItemSequences.from_lists([[1], []])
    with pytest.raises(InputError, match=r"1 user \('b'\) without items in any part"):
        Split(("a", "b"), part, part, part)
    with pytest.raises(InputError, match="2 user keys for 1 sequences"):
        Split(("a", "b"), part, part, ItemSequences.from_lists([[1]]))
