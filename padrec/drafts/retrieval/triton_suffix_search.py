"""The ranges of contexts in a suffix array, found by a GPU kernel."""

import torch
from torch import Tensor

from padrec.decoding.lists.triton_arguments import block
from padrec.drafts.kernels.suffix_search import suffix_search_kernel

_PROBES = 8  # suffixes that a step of a search looks at


def triton_find_ranges(
    context: Tensor, known: Tensor, bounds: Tensor, tokens: Tensor, order: Tensor
) -> tuple[Tensor, Tensor]:
    """See `find_ranges`."""
    (batch, longest), n_orders = context.shape, bounds.shape[1]
    low, high = torch.empty(2, batch, n_orders, longest, dtype=torch.long, device=context.device)
    suffix_search_kernel[(batch * n_orders,)](
        context=context.contiguous(),
        known=known,
        bounds=bounds.contiguous(),
        tokens=tokens,
        order=order,
        low=low,
        high=high,
        n_lengths=longest,
        n_orders=n_orders,
        last=len(order) - 1,
        # A step leaves at most an eighth, three bits of a count.
        steps=-(-len(order).bit_length() // (_PROBES.bit_length() - 1)),
        BLOCK=block(longest),
        PROBES=_PROBES,
    )
    return low, high
