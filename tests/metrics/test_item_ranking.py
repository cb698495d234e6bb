import itertools
import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from padrec.metrics import ItemNDCG, ItemRecall, item_ndcg, item_recall, ndcg, recall

# Leaves of 1, 2 and 3 items, whose members are not neighbours in the catalog.
_LEAF_OF_ITEM = [0, 1, 2, 3, 1, 2, 0, 2]
_LEAF_SIZES = [2, 2, 3, 1]
_USERS = st.tuples(st.lists(st.integers(-1, 3), max_size=5), st.lists(st.integers(0, 7), min_size=1, max_size=4))


def tensors(recommended: list[int], relevant: list[int]) -> dict[str, torch.Tensor]:
    return {
        "recommended": torch.tensor([recommended], dtype=torch.int64).reshape(1, -1),
        "relevant_items": torch.tensor([relevant]),
        "leaf_of_item": torch.tensor(_LEAF_OF_ITEM),
        "leaf_sizes": torch.tensor(_LEAF_SIZES),
    }


def orders(recommended: list[int]) -> list[list[int]]:
    """Every list of items that a list of leaves can stand for; all are equally likely."""
    members = [[item for item, leaf in enumerate(_LEAF_OF_ITEM) if leaf == wanted] or [-1] for wanted in recommended]
    tied = [list(itertools.permutations(items)) for items in members]
    return [[item for items in choice for item in items] for choice in itertools.product(*tied)]


@given(user=_USERS, k=st.integers(1, 12))
def test_values_equal_the_mean_over_every_order_of_tied_items(user: tuple[list[int], list[int]], k: int) -> None:
    recommended, relevant = user
    lists = orders(recommended)
    items = torch.tensor(lists, dtype=torch.int64).reshape(len(lists), -1)
    ground_truth = torch.tensor([relevant]).expand(len(lists), -1)
    for by_item, plain in ((item_ndcg, ndcg), (item_recall, recall)):
        expected = plain(items, ground_truth, k).mean().item()
        assert by_item(**tensors(recommended, relevant), k=k).item() == pytest.approx(expected, abs=1e-12)


@given(st.data())
def test_without_shared_ids_the_value_is_that_of_the_leaves(data: st.DataObject) -> None:
    recommended = torch.tensor(data.draw(st.lists(st.lists(st.integers(-1, 5), min_size=4, max_size=4), min_size=1)))
    relevant = torch.tensor([data.draw(st.lists(st.integers(-1, 5), min_size=2, max_size=2)) for _ in recommended])
    leaf_of_item = torch.tensor(random.Random(0).sample(range(6), 6))
    relevant_leaves = leaf_of_item[relevant.clamp(min=0)].where(relevant >= 0, -1)
    sizes = torch.ones(6, dtype=torch.int64)
    for by_item, plain in ((item_ndcg, ndcg), (item_recall, recall)):
        values = by_item(recommended, relevant, leaf_of_item, sizes, 3).tolist()
        assert values == pytest.approx(plain(recommended, relevant_leaves, 3).tolist(), abs=1e-12, nan_ok=True)


def test_metrics_are_means_over_counted_users() -> None:
    users = [([1, 0], [4], True), ([2], [5], True), ([3], [3], False)]
    metrics = ItemNDCG(2), ItemRecall(2)
    for metric in metrics:
        for recommended, relevant, counted in users:
            metric.update(**tensors(recommended, relevant), counted=torch.tensor([counted]))
    second = 1 / math.log2(3)
    assert metrics[0].compute().item() == pytest.approx(((1 + second) / 2 + (1 + second) / 3) / 2)
    assert metrics[1].compute().item() == pytest.approx((1 + 2 / 3) / 2)
