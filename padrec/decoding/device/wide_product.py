"""Matrix products whose result is wider than their factors."""

import torch
from torch import Tensor
from torch.nn import functional as F


def wide_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The linear map of `x` `[T, n]` by a weight `[m, n]`, its sums kept in float32 (float64 for float64), `[T, m]`."""
    exact = torch.promote_types(x.dtype, torch.float32)
    if x.dtype == exact:
        return F.linear(x, weight, bias)
    # A draft is validated while it is trained, in mixed precision, which would round the result again.
    with torch.autocast(x.device.type, enabled=False):
        y = torch.mm(x, weight.t(), out_dtype=exact) if x.is_cuda else F.linear(x.to(exact), weight.to(exact))
    return y if bias is None else y + bias
