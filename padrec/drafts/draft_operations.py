"""The inputs of a feature draft's layer, computed by PyTorch or by kernels."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from padrec.decoding.device.early_launch import has_kernels


class Gate(NamedTuple):
    """The gate of PAD-Rec's step embedding; see `FoldedFusion`.

    Attributes:
        weight: w, `[1, d]`.
        offset: c[v] of each token, `[V, 1]`.
        step_embedding: Q[step], `[d]`.
    """

    weight: Tensor
    offset: Tensor
    step_embedding: Tensor


class TreeLevel(NamedTuple):
    """The nodes of one depth of a draft's tree.

    Attributes:
        parents: each node's parent among the p nodes of the depth above, int64 `[B, k]`.
        above: the nodes that those see, bool `[B, p, R]`; None where the parent is the root, which sees none.
        nodes: 0 … R - 1, the numbers of the tree's nodes, int64 `[R]`.
        first: number of the first node of this depth.
    """

    parents: Tensor
    above: Tensor | None
    nodes: Tensor
    first: int

    def of_parents(self, values: Tensor) -> Tensor:
        """Pick each node's parent from values `[B, p, *]` of the depth above: `[B, k, *]`."""
        return values.gather(1, self.parents[..., None].expand(-1, -1, values.shape[-1]))

    def visible(self) -> Tensor:
        """Which nodes each node sees: itself and what its parent sees, bool `[B, k, R]`."""
        n_nodes = self.parents.shape[1]
        itself = self.nodes[self.first : self.first + n_nodes, None] == self.nodes  # [k, R]
        if self.above is None:
            return itself.expand(len(self.parents), -1, -1)
        return itself | self.of_parents(self.above)


class DraftOperations:
    """The operations in PyTorch; `TritonDraftOperations` computes them with GPU kernels."""

    def fuse(self, tokens: Tensor, mapped: Tensor, table: Tensor) -> Tensor:
        """Layer inputs after features of the target; see `FoldedFusion`.

        Args:
            tokens: int64 `[B, T]`.
            mapped: W_f f of the feature before each token, `[B, T, d]`.
            table: T, `[V, d]`.

        Returns:
            `[B, T, d]`.
        """
        return (mapped + table[tokens]).to(table.dtype)

    def fuse_in_tree(
        self, tokens: Tensor, mapped: Tensor, table: Tensor, gate: Gate | None, level: TreeLevel
    ) -> tuple[Tensor, Tensor]:
        """Layer inputs of one depth of a tree; see `FoldedFusion.extend`.

        Args:
            tokens: int64 `[B, k]`.
            mapped: W_f f of the depth above, `[B, p, d]`.
            table: T, `[V, d]`.
            gate: None without step embeddings.
            level: the nodes.

        Returns:
            `[B, k, d]`, and which nodes each node sees, bool `[B, k, R]`.
        """
        fused = level.of_parents(mapped) + table[tokens]
        if gate is not None:
            score = functional.linear(fused, gate.weight.to(fused.dtype)) + gate.offset[tokens]
            fused = fused + score.sigmoid() * gate.step_embedding
        return fused.to(table.dtype), level.visible()


def draft_operations_for(device: torch.device, dtype: torch.dtype) -> DraftOperations:
    """Kernels where the device runs them, else PyTorch."""
    if has_kernels(device, dtype):
        from padrec.drafts.triton_draft_operations import TritonDraftOperations

        return TritonDraftOperations()
    return DraftOperations()
