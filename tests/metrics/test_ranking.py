import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from padrec.catalog import InputError
from padrec.metrics import NDCG, ItemNDCG, ItemRecall, Recall, ndcg, recall

# Few different items, so that hits, repetitions and non-items (-1) are frequent.
_LISTS = st.lists(st.integers(-1, 6), max_size=7)
_RELEVANT = st.lists(st.integers(0, 6), max_size=5)
_USERS = st.lists(st.tuples(_LISTS, _RELEVANT, st.booleans()), min_size=1, max_size=6)


def reference_hits(recommended: list[int], relevant: list[int], k: int) -> list[bool]:
    seen: set[int] = set()
    hits = []
    for item in recommended[:k]:
        hits.append(item in relevant and item not in seen)
        seen.add(item)
    return hits


def reference_recall(recommended: list[int], relevant: list[int], k: int) -> float:
    return sum(reference_hits(recommended, relevant, k)) / len(set(relevant)) if relevant else math.nan


def reference_ndcg(recommended: list[int], relevant: list[int], k: int) -> float:
    if not relevant:
        return math.nan
    hits = reference_hits(recommended, relevant, k)
    gained = sum(1 / math.log2(rank + 1) for rank, hit in enumerate(hits, start=1) if hit)
    return gained / sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(set(relevant))) + 1))


def padded(rows: list[list[int]]) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [-1] * (width - len(row)) for row in rows], dtype=torch.int64).reshape(len(rows), width)


@given(users=_USERS, k=st.integers(1, 9))
def test_values_of_users_equal_the_reference(users: list[tuple[list[int], list[int], bool]], k: int) -> None:
    lists, relevant = [user[0] for user in users], [user[1] for user in users]
    for function, reference in ((ndcg, reference_ndcg), (recall, reference_recall)):
        values = function(padded(lists), padded(relevant), k)
        expected = [reference(*user[:2], k) for user in users]
        assert values.dtype == torch.float64
        assert values.tolist() == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(users=_USERS, k=st.integers(1, 9), n_batches=st.integers(1, 3))
def test_metric_is_the_mean_over_counted_users_with_relevant_items(
    users: list[tuple[list[int], list[int], bool]], k: int, n_batches: int
) -> None:
    metrics: list[NDCG | Recall] = [NDCG(k), Recall(k)]
    for batch in (users[start::n_batches] for start in range(n_batches)):
        if batch:
            lists, relevant = padded([user[0] for user in batch]), padded([user[1] for user in batch])
            for metric in metrics:
                metric.update(lists, relevant, torch.tensor([user[2] for user in batch]))
    kept = [user for user in users if user[2] and user[1]]
    for metric, reference in zip(metrics, (reference_ndcg, reference_recall), strict=True):
        expected = sum(reference(*user[:2], k) for user in kept) / len(kept) if kept else math.nan
        assert metric.compute().item() == pytest.approx(expected, abs=1e-12, nan_ok=True)


@given(recommended=_LISTS, relevant=st.lists(st.integers(0, 6), min_size=1, max_size=5), k=st.integers(1, 9))
def test_values_lie_between_zero_and_one(recommended: list[int], relevant: list[int], k: int) -> None:
    for function in (ndcg, recall):
        assert -1e-12 <= function(padded([recommended]), padded([relevant]), k).item() <= 1 + 1e-12


@given(relevant=st.lists(st.integers(0, 50), min_size=1, max_size=8, unique=True), k=st.integers(1, 9))
def test_recommending_the_relevant_items_is_perfect(relevant: list[int], k: int) -> None:
    rows = padded([relevant])
    assert ndcg(rows, rows, k).item() == pytest.approx(1)
    assert recall(rows, rows, k).item() == min(k, len(relevant)) / len(relevant)


def test_no_counted_user_gives_nan() -> None:
    metric = NDCG(5)
    metric.update(torch.tensor([[1]]), torch.tensor([[1]]), torch.tensor([False]))
    assert math.isnan(metric.compute().item())


def test_metrics_that_agree_on_the_first_batch_stay_apart_in_a_collection() -> None:
    collection = MetricCollection({f"{metric.__name__}@{k}": metric(k) for metric in (NDCG, Recall) for k in (1, 3)})
    collection.update(torch.tensor([[1, 2, 3]]), torch.tensor([[9, -1]]))  # all miss: every metric is 0
    collection.update(torch.tensor([[1, 2, 3]]), torch.tensor([[3, 4]]))
    values = {name: value.item() for name, value in collection.compute().items()}
    ideal = 1 + 1 / math.log2(3)
    assert values == pytest.approx({"NDCG@1": 0, "NDCG@3": 0.5 / ideal / 2, "Recall@1": 0, "Recall@3": 0.25})


@pytest.mark.parametrize(
    ("recommended", "relevant"),
    [((2, 3), (3, 1)), ((3,), (3, 1)), ((3, 2), (3,))],
    ids=["other number of users", "lists without a batch", "relevant items without a batch"],
)
def test_wrong_shapes_are_refused(recommended: tuple[int, ...], relevant: tuple[int, ...]) -> None:
    for function in (ndcg, recall):
        with pytest.raises(InputError, match=r"(has|have) the shape"):
            function(torch.zeros(recommended, dtype=torch.int64), torch.zeros(relevant, dtype=torch.int64), 2)


def test_k_below_one_is_refused() -> None:
    with pytest.raises(InputError, match="Recall: k is 0, expected at least 1"):
        Recall(0)


@pytest.mark.parametrize(
    "metric", [NDCG(2), Recall(2), ItemNDCG(2), ItemRecall(2)], ids=lambda metric: type(metric).__name__
)
@pytest.mark.parametrize("given", ["recommended", "relevant"])
@pytest.mark.parametrize("values", [torch.tensor([[0.9, 0.1, 0.5]]), torch.tensor([[True, False, True]])])
def test_scores_and_masks_are_refused(metric: Metric, given: str, values: Tensor) -> None:
    by_item = isinstance(metric, ItemNDCG | ItemRecall)
    catalog = {"leaf_of_item": torch.arange(3), "leaf_sizes": torch.ones(3, dtype=torch.int64)} if by_item else {}
    indices = {
        "recommended": torch.tensor([[0, 1, 2]]),
        "relevant_items" if by_item else "relevant": torch.tensor([[1]]),
    }
    name = next(name for name in indices if name.startswith(given))
    with pytest.raises(InputError, match="expected int64 indices of items, best first"):
        metric.update(**indices | {name: values}, **catalog)
