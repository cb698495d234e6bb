"""What a draft remembers, written by one GPU kernel where plain PyTorch takes five."""

import triton
from torch import Tensor

from padrec.decoding.device.early_launch import launch_options, launches_early
from padrec.drafts.kernels.memory import kept_kernel, last_kernel


def remember_kept(
    features: Tensor, path: Tensor, seen: tuple[Tensor, Tensor, Tensor], kept: tuple[Tensor, Tensor, Tensor, Tensor]
) -> None:
    """Write an observation, its `seen` tokens, slots and count, into what was `kept` before; see `DraftMemory.keep`."""
    n_units = features.shape[2]
    kept_kernel[(path.numel(),)](
        features.contiguous(),
        path.contiguous(),
        *(x.contiguous() for x in seen),
        *kept,
        features.shape[1],
        path.shape[1],
        n_units,
        BLOCK=triton.next_power_of_2(n_units),
        **launch_options(launches_early(features.device)),
    )


def remember_last(output: Tensor, count: Tensor, root: Tensor, lengths: Tensor) -> None:
    """See `DraftMemory.move_on`."""
    batch, n_tokens, n_units = output.shape
    last_kernel[(batch,)](
        output.contiguous(),
        count,
        root,
        lengths,
        n_tokens,
        n_units,
        BLOCK=triton.next_power_of_2(n_units),
        **launch_options(launches_early(output.device)),
    )
