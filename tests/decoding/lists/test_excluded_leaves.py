"""Excluded items: which leaves they take away, and what may then follow."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from padrec.catalog import Catalog, CatalogTrie, InputError, SemanticIDVocabulary
from padrec.decoding import CatalogConstraint, LeafExclusion, excluded_leaves
from tests import reference
from tests.stubs import random_catalog

_CPU = torch.device("cpu")


def test_a_leaf_is_excluded_where_all_its_items_are() -> None:
    catalog = Catalog(torch.tensor([(1, 0), (0, 0), (1, 0), (1, 1)]), ["a", "b", "c", "d"])  # leaves: b, a and c, d
    found = excluded_leaves(catalog, [[0], [0, 2], [3, 1, 3], []], list_length=1)
    assert found.tolist() == [[-1, -1], [1, -1], [0, 2], [-1, -1]]
    assert excluded_leaves(catalog, [[], [0]], list_length=3).shape == (2, 0)


def test_too_many_excluded_items_are_one_message_that_names_the_row() -> None:
    catalog = random_catalog((5, 6), 20)
    items = [item for item in range(20) if int(catalog.leaf_of_item[item]) > 2]
    excluded_leaves(catalog, [items], list_length=3)
    n_leaves = catalog.n_leaves
    message = f"history 1: {n_leaves - 3} of {n_leaves} semantic IDs excluded, which leaves 3: expected at least 4 for"
    with pytest.raises(InputError, match=message):
        excluded_leaves(catalog, [[], items], list_length=4)


@given(data=st.data(), separator=st.booleans(), shared=st.booleans(), seed=st.integers(0, 100))
def test_what_may_follow_is_what_some_item_that_is_not_excluded_continues_with(
    data: st.DataObject, separator: bool, shared: bool, seed: int
) -> None:
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    catalog = random_catalog(sizes, data.draw(st.integers(1, 8)), seed)
    vocabulary = SemanticIDVocabulary(sizes, separator=separator, shared_codes=shared)
    n_leaves = catalog.n_leaves
    batch = [data.draw(st.lists(st.integers(0, n_leaves - 1), max_size=n_leaves - 1, unique=True)) for _ in range(3)]
    list_length = data.draw(st.integers(1, n_leaves - max(len(row) for row in batch)))
    constraint = CatalogConstraint(CatalogTrie(catalog, vocabulary), vocabulary, list_length).excluding(3)
    constraint.exclude(torch.zeros(3, n_leaves).long())  # an earlier batch, of which nothing is left
    constraint.exclude(torch.tensor([row + [-1] * (n_leaves - len(row)) for row in batch]))
    leaves = reference.leaf_tokens(catalog, vocabulary)
    left = [[leaf for number, leaf in enumerate(leaves) if number not in row] for row in batch]
    state = constraint.initial(3, _CPU).unsqueeze()
    written: list[list[int]] = [[], [], []]
    for _ in range(vocabulary.list_tokens(list_length)):
        allowed = constraint.allowed(state)
        for row in range(3):
            following = reference.allowed_tokens(left[row], vocabulary, written[row], list_length)
            assert set(allowed[row, 0].nonzero().flatten().tolist()) == following
            assert int(constraint.forced(state)[row]) == -1 or following == {int(constraint.forced(state)[row])}
            written[row].append(data.draw(st.sampled_from(sorted(following))))
        state = constraint.advance(state, torch.tensor([[tokens[-1]] for tokens in written]))
    assert not constraint.allowed(state).any()


@given(seed=st.integers(0, 50), data=st.data())
def test_items_excluded_for_all_count_as_those_of_every_row(seed: int, data: st.DataObject) -> None:
    catalog = random_catalog((3, 3), 20, seed)
    items = st.sets(st.integers(0, 19), max_size=12)
    for_all, rows = data.draw(items), [data.draw(items) for _ in range(3)]
    together = excluded_leaves(catalog, [row | for_all for row in rows], list_length=0)
    found = LeafExclusion(catalog, for_all).leaves(rows, list_length=0)
    for row, expected in zip(found.tolist(), together.tolist(), strict=True):
        leaves = [leaf for leaf in row if leaf >= 0]
        assert len(set(leaves)) == len(leaves)
        assert set(leaves) == {leaf for leaf in expected if leaf >= 0}
