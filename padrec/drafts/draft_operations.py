"""What a feature draft computes beside its layer: its inputs, and what it remembers."""

import torch
from torch import Tensor
from torch.nn import functional

from padrec.decoding.device.early_launch import has_kernels
from padrec.decoding.trees.draft import Observation
from padrec.drafts.draft_memory import DraftMemory

# The gate of PAD-Rec's step embedding: its weight [1, d], what it adds by token [V, 1], the step's embedding [d].
Gate = tuple[Tensor, Tensor, Tensor]


class DraftOperations:
    """The operations in plain PyTorch; `TritonDraftOperations` has the same in GPU kernels."""

    def fuse(self, tokens: Tensor, read: Tensor, parents: Tensor | None, table: Tensor, gate: Gate | None) -> Tensor:
        """The inputs of a folded fusion; see `FoldedFusion`.

        Args:
            tokens: int64 `[B, T]`.
            read: W_f f of the features before them, `[B, p, d]`.
            parents: which of these stands before each token, int64 `[B, T]`; None where p is T, in order.
            table: what each token adds, `[V, d]`.
            gate: None without a step embedding.

        Returns:
            `[B, T, d]`.
        """
        fused = features_before(read, parents) + table[tokens]
        if gate is not None:
            weight, offset, step_embedding = gate
            score = functional.linear(fused, weight.to(fused.dtype)) + offset[tokens]
            fused = fused + score.sigmoid() * step_embedding
        return fused.to(table.dtype)

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
        """The same for the nodes of one depth of a tree, and which nodes each of them sees; see `Fusion.extend`."""
        return self.fuse(tokens, read, parents, table, gate), seen_nodes(parents, above, rows, first)

    def remember(self, seen: Observation, memory: DraftMemory) -> None:
        """Keep what the target kept."""
        for name in ("features", "tokens", "slots", "count"):
            getattr(memory.kept, name).copy_(getattr(seen, name))

    def move_on(self, output: Tensor, count: Tensor, memory: DraftMemory) -> None:
        """Move on past the first `count` of the outputs `[B, T, d]`; rows that read nothing stay where they are."""
        last = (count - 1).clamp(min=0)[:, None, None].expand(-1, -1, output.shape[-1])
        memory.root.copy_(torch.where(count[:, None, None] > 0, output.gather(1, last), memory.root))
        memory.lengths.add_(count)


def features_before(read: Tensor, parents: Tensor | None) -> Tensor:
    """What was read before each token, `[B, T, *]`; see `DraftOperations.fuse`."""
    return read if parents is None else read.gather(1, parents[..., None].expand(-1, -1, read.shape[-1]))


def seen_nodes(parents: Tensor, above: Tensor | None, rows: Tensor, first: int) -> Tensor:
    """Which nodes the nodes of one depth see, bool `[B, k, R]`; see `Fusion.extend`."""
    own = (rows[first:][: parents.shape[1], None] == rows).expand(len(parents), -1, -1)
    return own if above is None else own | above.gather(1, parents[..., None].expand(-1, -1, len(rows)))


def draft_operations_for(device: torch.device, dtype: torch.dtype) -> DraftOperations:
    """Kernels where the device runs them, else plain PyTorch."""
    if has_kernels(device, dtype):
        from padrec.drafts.triton_draft_operations import TritonDraftOperations

        return TritonDraftOperations()
    return DraftOperations()
