import pytest

from padrec.catalog import InputError
from padrec.data import Dataset, Interactions, ItemSequences
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
