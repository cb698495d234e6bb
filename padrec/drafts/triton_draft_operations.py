"""The inputs of a feature draft's layers, computed by GPU kernels."""

import torch
import triton
from torch import Tensor

from padrec.decoding.device.early_launch import launch_options, launches_early
from padrec.decoding.lists.triton_arguments import in_bytes, in_rows
from padrec.drafts.draft_operations import DraftOperations, LayerInputs, StepTerms, TreeLevel
from padrec.drafts.kernels.fusion import fusion_kernel

_INPUTS = 1024  # of a program


class TritonDraftOperations(DraftOperations):
    """See `DraftOperations`."""

    def fuse(
        self, tokens: Tensor, mapped: Tensor, terms: StepTerms, slots: Tensor, level: TreeLevel | None = None
    ) -> tuple[LayerInputs, Tensor | None]:
        """See `DraftOperations.fuse`."""
        table, n_inputs, rows, n_nodes, visible = terms.table, terms.n_inputs, in_rows(mapped), 0, None
        hidden = torch.empty(*tokens.shape, terms.n_units, dtype=table.dtype, device=table.device)
        qkv = hidden.new_empty(*tokens.shape, n_inputs - terms.n_units) if n_inputs > terms.n_units else None
        if level is not None:
            above, n_nodes = None if level.above is None else in_bytes(level.above), len(level.nodes)
            level = level._replace(parents=level.parents.contiguous(), above=above)
            visible = torch.empty(*tokens.shape, n_nodes, dtype=torch.bool, device=table.device)
        fusion_kernel[(tokens.numel(), triton.cdiv(n_inputs, _INPUTS))](
            tokens=tokens.contiguous(),
            mapped=rows,
            table=table,
            slots=None if terms.slots is None else slots.contiguous(),
            slot_terms=terms.slots,
            step=terms.step,
            level=level,
            hidden=hidden,
            qkv=qkv,
            visible=None if visible is None else visible.view(torch.uint8),
            n_tokens=tokens.shape[1],
            n_before=mapped.shape[1],
            mapped_stride=rows.stride(0),
            table_stride=table.stride(0),
            n_units=terms.n_units,
            n_inputs=n_inputs,
            n_nodes=n_nodes,
            VECTOR=table.shape[1] > n_inputs + 1,
            BLOCK=min(_INPUTS, triton.next_power_of_2(n_inputs)),
            BLOCK_N=triton.next_power_of_2(max(1, n_nodes)),
            **launch_options(launches_early(table.device)),
        )
        return LayerInputs(hidden, qkv), visible
