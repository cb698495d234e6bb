"""The largest of few values in many rows, which is what trees are grown by."""

from importlib.util import find_spec

import torch
from torch import Tensor

# Triton comes with PyTorch's GPU builds only.
if find_spec("triton") is not None:
    import triton

    from padrec.decoding.lists.kernels.top_k import top_k_kernel

# The kernel takes one value after the other from a row that it holds in registers.
_MOST_TAKEN = 32
_LONGEST_ROW = 8192


def top_k(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest values of each row in descending order, `[*, k]`, and their int64 indices.

    Like `torch.topk`, which sorts with several launches what one launch can pick from short rows on a GPU.

    Args:
        values: `[*, n]`, without NaN.
        k: at most n.
    """
    n = values.shape[-1]
    if values.is_cuda and values.dtype == torch.float32 and fits_a_row(n, k):
        best, indices = _short_top_k(values.reshape(-1, n), k)
        return best.view(*values.shape[:-1], k), indices.view(*values.shape[:-1], k)
    found = values.topk(k)
    return found.values, found.indices


def fits_a_row(n: int, k: int) -> bool:
    """Whether a kernel can take the k largest of n values from registers."""
    return k <= _MOST_TAKEN and n <= _LONGEST_ROW


# An operation of its own, so that the compiler takes it as it is.
@torch.library.custom_op("padrec::short_top_k", mutates_args=())
def _short_top_k(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    values = values.contiguous()
    rows, n = values.shape
    best, indices = values.new_empty(rows, k), torch.empty(rows, k, dtype=torch.long, device=values.device)
    top_k_kernel[(rows,)](
        values, best, indices, n, K=k, BLOCK=triton.next_power_of_2(n), BLOCK_K=triton.next_power_of_2(k), num_warps=4
    )
    return best, indices


@_short_top_k.register_fake
def _(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    rows = values.shape[0]
    return values.new_empty(rows, k), values.new_empty(rows, k, dtype=torch.long)
