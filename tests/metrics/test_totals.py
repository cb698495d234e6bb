"""Sums and means that a module of low precision around them does not spoil."""

import math

import pytest
import torch
from torch import nn

from padrec.metrics import Mean, Total


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_ones_are_counted_beyond_what_the_module_around_can_count(dtype: torch.dtype) -> None:
    module = nn.ModuleDict({"total": Total(), "mean": Mean()}).to(dtype)
    total, mean = module["total"], module["mean"]
    assert isinstance(total, Total)
    assert isinstance(mean, Mean)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # as Lightning's precision `bf16-true` does in every step
    try:
        for step in range(3000):
            total.update(1.0)
            mean.update(torch.tensor([True, step < 300]))
    finally:
        torch.set_default_dtype(before)
    assert total.compute().item() == 3000
    assert mean.compute().item() == 3300 / 6000


def test_whole_tensors_are_added() -> None:
    total, mean = Total(), Mean()
    total.update(torch.tensor([[1, 2], [3, 4]]))
    total.update(0.5)
    mean.update(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    mean.update(torch.tensor(0.0))
    assert total.compute().item() == 10.5
    assert mean.compute().item() == 2.0


def test_the_mean_of_nothing_is_no_number() -> None:
    mean = Mean()
    mean.update(torch.zeros(0))
    assert math.isnan(mean.compute().item())
