"""The highest values of each row: among the children of a beam, what a step keeps."""

from importlib.util import find_spec

import torch
from torch import Tensor

# A program of the kernel holds a row in registers.
_LONGEST_ROW = 1 << 14
_HAS_TRITON = find_spec("triton") is not None


def best_first(values: Tensor, count: int) -> Tensor:
    """Places of the `count` highest values of each row `[B, M]`, best first, ties in order, int64 `[B, count]`."""
    return values.sort(dim=1, descending=True, stable=True).indices[:, :count]


def best_in_order(values: Tensor, count: int) -> Tensor:
    """Places of the `count` highest values of each row `[B, M]`, int64 `[B, count]`.

    They are in rising order, those of minus infinity after all others. Of equal values the first are taken; M is at
    least `count`.
    """
    n = values.shape[1]
    if values.is_cuda and _HAS_TRITON and n <= _LONGEST_ROW:
        found: Tensor = _best_in_order_by_kernel(values, count)
        return found
    least = values.topk(count, sorted=False).values.amin(1, keepdim=True)
    # A GPU takes twice as long over keys of 64 bits.
    place = torch.arange(n, dtype=torch.int32, device=values.device)
    # All that are higher than the last one, and of its equals the first; no two have the same key.
    key = torch.where(values > least, 2 * n - place, torch.where(values == least, n - place, 0))
    kept = key.topk(count, sorted=False).values
    place = -kept % n
    return torch.where((kept <= n) & least.isneginf(), place + n, place).sort(1).values.long() % n


# An operation of its own, so that compiled functions can call it.
@torch.library.custom_op("padrec::best_in_order", mutates_args=(), device_types="cuda")
def _best_in_order_by_kernel(values: Tensor, count: int) -> Tensor:
    from padrec.decoding.beam.triton_selection import best_in_order_by_kernel

    return best_in_order_by_kernel(values, count)


@_best_in_order_by_kernel.register_fake
def _(values: Tensor, count: int) -> Tensor:
    return values.new_empty(len(values), count, dtype=torch.long)
