"""What a feature draft computes beside its layer, by GPU kernels."""

import torch
import triton
from torch import Tensor

from padrec.decoding.device.early_launch import launch_options, launches_early
from padrec.decoding.lists.triton_arguments import in_rows
from padrec.decoding.trees.draft import Observation
from padrec.drafts.draft_memory import DraftMemory
from padrec.drafts.draft_operations import DraftOperations, Gate
from padrec.drafts.kernels.fusion import fusion_kernel
from padrec.drafts.kernels.memory import kept_kernel, last_kernel


class TritonDraftOperations(DraftOperations):
    """See `DraftOperations`."""

    def fuse(self, tokens: Tensor, read: Tensor, parents: Tensor | None, table: Tensor, gate: Gate | None) -> Tensor:
        """See `DraftOperations.fuse`."""
        fused = torch.empty(*tokens.shape, table.shape[1], dtype=table.dtype, device=table.device)
        _launch_fusion(tokens, read, parents, table, gate, fused)
        return fused

    def fuse_in_tree(
        self,
        tokens: Tensor,
        read: Tensor,
        parents: Tensor,
        table: Tensor,
        gate: Gate | None,
        above: Tensor | None,
        rows: Tensor,
        first: int,
    ) -> tuple[Tensor, Tensor]:
        """See `DraftOperations.fuse_in_tree`."""
        fused = torch.empty(*tokens.shape, table.shape[1], dtype=table.dtype, device=table.device)
        seen = torch.empty(*tokens.shape, len(rows), dtype=torch.bool, device=table.device)
        _launch_fusion(tokens, read, parents, table, gate, fused, seen, above, first)
        return fused, seen

    def remember(self, seen: Observation, memory: DraftMemory) -> None:
        """See `DraftOperations.remember`."""
        features, path, kept = seen.node_features, seen.path, memory.kept
        n_units = features.shape[2]
        kept_kernel[(path.numel(),)](
            features=features.contiguous(),
            path=path.contiguous(),
            tokens=seen.tokens.contiguous(),
            slots=seen.slots.contiguous(),
            count=seen.count.contiguous(),
            kept_features=kept.features,
            kept_tokens=kept.tokens,
            kept_slots=kept.slots,
            kept_count=kept.count,
            n_nodes=features.shape[1],
            n_kept=path.shape[1],
            n_units=n_units,
            BLOCK=triton.next_power_of_2(n_units),
            **launch_options(launches_early(features.device)),
        )

    def move_on(self, output: Tensor, count: Tensor, memory: DraftMemory) -> None:
        """See `DraftOperations.move_on`."""
        batch, n_tokens, n_units = output.shape
        last_kernel[(batch,)](
            output=output.contiguous(),
            count=count,
            root=memory.root,
            lengths=memory.lengths,
            n_tokens=n_tokens,
            n_units=n_units,
            BLOCK=triton.next_power_of_2(n_units),
            **launch_options(launches_early(output.device)),
        )


def _launch_fusion(
    tokens: Tensor,
    read: Tensor,
    parents: Tensor | None,
    table: Tensor,
    gate: Gate | None,
    fused: Tensor,
    seen: Tensor | None = None,
    above: Tensor | None = None,
    first: int = 0,
) -> None:
    n_units = table.shape[1]
    rows = in_rows(read)
    weight, offset, step_embedding = gate or (None, None, None)
    fusion_kernel[(tokens.numel(),)](
        tokens=tokens.contiguous(),
        read=rows,
        parents=None if parents is None else parents.contiguous(),
        table=table,
        gate_weight=weight,
        gate_offset=offset,
        step_embedding=step_embedding,
        above=None if above is None else above.contiguous().view(torch.uint8),
        fused=fused,
        seen=None if seen is None else seen.view(torch.uint8),
        n_tokens=tokens.shape[1],
        n_before=read.shape[1],
        read_stride=rows.stride(0),
        n_units=n_units,
        n_above=0 if above is None else above.shape[1],
        n_rows=0 if seen is None else seen.shape[2],
        first=first,
        GATED=gate is not None,
        IN_TREE=seen is not None,
        BLOCK=triton.next_power_of_2(n_units),
        BLOCK_R=1 if seen is None else triton.next_power_of_2(seen.shape[2]),
        **launch_options(launches_early(table.device)),
    )
