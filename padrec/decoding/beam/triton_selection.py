"""Selection by a GPU kernel: one launch instead of two partial sorts and what prepares them."""

import torch
from torch import Tensor

from padrec.decoding.beam.kernels.selection import best_in_order_kernel
from padrec.decoding.lists.triton_arguments import block

# Values of one warp; a warp more costs less than more values of each.
_VALUES_PER_WARP = 256
_MOST_WARPS = 32


def best_in_order_by_kernel(values: Tensor, count: int) -> Tensor:
    """`best_in_order` of rows of at most 16,384 values, float32 or float64."""
    values = values.contiguous()
    size, n = block(values.shape[1]), values.shape[1]
    index = values.new_empty(len(values), count, dtype=torch.long)
    warps = max(1, min(_MOST_WARPS, size // _VALUES_PER_WARP))
    best_in_order_kernel[(len(values),)](values, index, n, COUNT=count, BLOCK=size, num_warps=warps)
    return index
