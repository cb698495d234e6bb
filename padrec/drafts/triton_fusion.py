"""The folded fusion by a GPU kernel, which also says what the nodes of a tree see."""

import torch
import triton
from torch import Tensor

from padrec.decoding.device.early_launch import launch_options, launches_early
from padrec.decoding.lists.triton_arguments import in_rows
from padrec.drafts.kernels.fusion import fusion_kernel


def fuse(
    tokens: Tensor,
    read: Tensor,
    parents: Tensor | None,
    table: Tensor,
    gate: tuple[Tensor, Tensor, Tensor] | None,
) -> Tensor:
    """See `FoldedFusion.__call__`; `gate` is its weight `[1, d]`, what it adds by token and the step's embedding."""
    fused = torch.empty(*tokens.shape, table.shape[1], dtype=table.dtype, device=table.device)
    _launch(tokens, read, parents, table, gate, fused)
    return fused


def fuse_in_tree(
    tokens: Tensor,
    read: Tensor,
    parents: Tensor,
    table: Tensor,
    gate: tuple[Tensor, Tensor, Tensor] | None,
    above: Tensor | None,
    first: int,
    n_rows: int,
) -> tuple[Tensor, Tensor]:
    """See `FoldedFusion.extend`."""
    fused = torch.empty(*tokens.shape, table.shape[1], dtype=table.dtype, device=table.device)
    seen = torch.empty(*tokens.shape, n_rows, dtype=torch.bool, device=table.device)
    _launch(tokens, read, parents, table, gate, fused, seen, above, first)
    return fused, seen


def _launch(
    tokens: Tensor,
    read: Tensor,
    parents: Tensor | None,
    table: Tensor,
    gate: tuple[Tensor, Tensor, Tensor] | None,
    fused: Tensor,
    seen: Tensor | None = None,
    above: Tensor | None = None,
    first: int = 0,
) -> None:
    n_units = table.shape[1]
    rows = in_rows(read)
    fusion_kernel[(tokens.numel(),)](
        tokens.contiguous(),
        rows,
        None if parents is None else parents.contiguous(),
        table,
        *(gate or (None, None, None)),
        None if above is None else above.contiguous().view(torch.uint8),
        fused,
        None if seen is None else seen.view(torch.uint8),
        tokens.shape[1],
        read.shape[1],
        rows.stride(0),
        n_units,
        0 if above is None else above.shape[1],
        0 if seen is None else seen.shape[2],
        first,
        GATED=gate is not None,
        IN_TREE=seen is not None,
        BLOCK=triton.next_power_of_2(n_units),
        BLOCK_R=1 if seen is None else triton.next_power_of_2(seen.shape[2]),
        **launch_options(launches_early(table.device)),
    )
