"""The inputs of a feature draft's layer, computed by GPU kernels."""

import torch
import triton
from torch import Tensor

from padrec.decoding.device.early_launch import launch_options, launches_early
from padrec.decoding.lists.triton_arguments import in_bytes, in_rows
from padrec.drafts.draft_operations import DraftOperations, Gate, TreeLevel
from padrec.drafts.kernels.fusion import fusion_kernel


class TritonDraftOperations(DraftOperations):
    """See `DraftOperations`."""

    def fuse(
        self, tokens: Tensor, mapped: Tensor, table: Tensor, gate: Gate | None = None, level: TreeLevel | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """See `DraftOperations.fuse`."""
        if gate is not None and len(gate.weight) > 1:  # a vector gate is a product, which the kernel does not compute
            return super().fuse(tokens, mapped, table, gate, level)
        rows, n_units, n_nodes, visible = in_rows(mapped), table.shape[1], 0, None
        fused = torch.empty(*tokens.shape, n_units, dtype=table.dtype, device=table.device)
        if level is not None:
            above, n_nodes = None if level.above is None else in_bytes(level.above), len(level.nodes)
            level = level._replace(parents=level.parents.contiguous(), above=above)
            visible = torch.empty(*tokens.shape, n_nodes, dtype=torch.bool, device=table.device)
        fusion_kernel[(tokens.numel(),)](
            tokens=tokens.contiguous(),
            mapped=rows,
            table=table,
            gate=gate,
            level=level,
            fused=fused,
            visible=None if visible is None else visible.view(torch.uint8),
            n_tokens=tokens.shape[1],
            n_before=mapped.shape[1],
            mapped_stride=rows.stride(0),
            n_units=n_units,
            n_nodes=n_nodes,
            BLOCK=triton.next_power_of_2(n_units),
            BLOCK_N=triton.next_power_of_2(max(1, n_nodes)),
            **launch_options(launches_early(table.device)),
        )
        return fused, visible
