"""What torchmetrics alone would get wrong without a sign."""

import pickle

import matplotlib as mpl
import pytest
import torch
from torch import nn

from padrec.metrics import NDCG, AcceptanceRate, AcceptedLengths, Latency, Recall, Speed, Speedup


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_sums_stay_float64_when_the_module_around_changes_precision(dtype: torch.dtype) -> None:
    module = nn.ModuleDict({"ndcg": NDCG(10), "speed": Speed(), "linear": nn.Linear(1, 1)})
    ndcg, speed = module["ndcg"], module["speed"]
    assert isinstance(ndcg, NDCG)
    assert isinstance(speed, Speed)
    recommended, relevant = torch.tensor([[1, 2, 3]]), torch.tensor([[3]])
    ndcg.update(recommended, relevant)
    speed.update(seconds=0.1, prefill_seconds=0.01, tokens=torch.tensor([3]))
    module.to(dtype)
    ndcg.update(recommended, relevant)
    assert ndcg.compute().dtype == torch.float64
    assert ndcg.compute().item() == 0.5
    assert speed.compute()["seconds"].item() == 0.1
    ndcg.reset()
    ndcg.update(recommended, relevant)
    assert ndcg.compute().dtype == torch.float64


def test_vectors_of_one_element_stay_vectors() -> None:
    histogram = AcceptedLengths(max_depth=0)
    histogram.update(torch.tensor([5]))
    by_depth = AcceptanceRate(n_slots=3, max_depth=1, by="depth")
    by_depth.update(torch.tensor([[2], [1], [1]]), torch.tensor([[1], [1], [0]]))
    matrix = AcceptanceRate(n_slots=1, max_depth=1, by="slot_and_depth")
    matrix.update(torch.tensor([[2]]), torch.tensor([[1]]))
    latency = Latency()
    latency.update(seconds=2.0, counted=torch.tensor([True]))
    assert histogram.compute().tolist() == [5]
    assert by_depth.compute().tolist() == [0.5]
    assert matrix.compute().tolist() == [[0.5]]
    assert latency.compute().tolist() == [2000.0]


def test_results_survive_pickling_and_the_cache() -> None:
    histogram = AcceptedLengths(max_depth=0)
    histogram.update(torch.tensor([5]))
    assert histogram.compute().tolist() == [5]
    copy = pickle.loads(pickle.dumps(histogram))
    assert copy.compute().tolist() == [5]
    copy.update(torch.tensor([2]))
    assert copy.compute().tolist() == [7]
    assert histogram.compute().tolist() == [5]


def test_forward_returns_the_value_of_the_batch_and_keeps_the_total() -> None:
    recall, speedup = Recall(1), Speedup()
    assert recall(torch.tensor([[1]]), torch.tensor([[1]])).item() == 1
    assert recall(torch.tensor([[1]]), torch.tensor([[2]])).item() == 0
    assert recall.compute().item() == 0.5
    assert speedup(0, 4.0, 2.0)["speedup"].item() == 2
    assert speedup(1, 4.0, 1.0)["speedup"].item() == 4
    assert speedup.compute()["speedup"].item() == 8 / 3


def test_scalars_can_be_plotted() -> None:
    mpl.use("Agg")
    metric = NDCG(2)
    metric.update(torch.tensor([[1, 2]]), torch.tensor([[2]]))
    figure, _ = metric.plot()
    assert figure is not None
