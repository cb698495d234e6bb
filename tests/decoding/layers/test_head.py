import copy

import pytest
import torch
from torch import nn

from padrec.decoding.layers.layer_operations import Head, LayerOperations


@pytest.mark.parametrize("mixed", [False, True], ids=["plain", "mixed precision"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_logits_are_not_rounded_to_the_precision_of_the_head(dtype: torch.dtype, bias: bool, mixed: bool) -> None:
    if mixed and dtype != torch.bfloat16:
        pytest.skip("mixed precision rounds what is wider")
    torch.manual_seed(0)
    head, outputs = nn.Linear(32, 50, bias=bias).to(dtype), torch.randn(2, 3, 32).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        found = Head(head, LayerOperations())(outputs)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = copy.deepcopy(head).double()(outputs.double())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_another_head_keeps_its_own_product() -> None:
    outputs = torch.randn(2, 3, 8, dtype=torch.bfloat16)
    assert torch.equal(Head(nn.Identity(), LayerOperations())(outputs), outputs.float())
