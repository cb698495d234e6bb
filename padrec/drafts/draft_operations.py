"""The inputs of a feature draft's layer, computed by PyTorch or by kernels."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from padrec.decoding.device.early_launch import has_kernels


class Gate(NamedTuple):
    """The gate of PAD-Rec's step embedding; see `FoldedFusion`."""

    weight: Tensor  # w, [1, d], or [d, d] of a vector gate
    offset: Tensor  # c[v], [V, 1] or [V, d]
    step_embedding: Tensor  # Q[step], [d]


class TreeLevel(NamedTuple):
    """The k nodes of one depth of a draft's tree of R nodes; p nodes are one depth above."""

    parents: Tensor  # each node's parent among those above, int64 [B, k]
    above: Tensor | None  # nodes that those above see, bool [B, p, R]; None for the root
    nodes: Tensor  # 0 … R - 1, int64 [R]
    first: int  # number of this depth's first node

    def of_parents(self, values: Tensor) -> Tensor:
        """Pick each node's parent from values `[B, p, *]` of the depth above: `[B, k, *]`."""
        return values.gather(1, self.parents[..., None].expand(-1, -1, values.shape[-1]))

    def visible(self) -> Tensor:
        """Which nodes each node sees: itself and what its parent sees, bool `[B, k, R]`."""
        itself = self.nodes[self.first :][: self.parents.shape[1], None] == self.nodes  # [k, R]
        itself = itself.expand(len(self.parents), -1, -1)
        return itself if self.above is None else itself | self.of_parents(self.above)


class DraftOperations:
    """The operations in PyTorch; `TritonDraftOperations` computes them with GPU kernels."""

    def fuse(
        self, tokens: Tensor, mapped: Tensor, table: Tensor, gate: Gate | None = None, level: TreeLevel | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Layer inputs without slot terms; see `FoldedFusion`.

        Args:
            tokens: int64 `[B, T]`.
            mapped: W_f f of the feature before each token, `[B, T, d]`, or of the p nodes above, `[B, p, d]`.
            table: T[v], `[V, d]`.
            gate: None without step embeddings.
            level: the T nodes, if the tokens are those of a tree.

        Returns:
            `[B, T, d]`, and in a tree which nodes each node sees, bool `[B, T, R]`.
        """
        fused = (mapped if level is None else level.of_parents(mapped)) + table[tokens]
        if gate is not None:
            score = functional.linear(fused, gate.weight.to(fused.dtype)) + gate.offset[tokens]
            fused = fused + score.sigmoid() * gate.step_embedding
        return fused.to(table.dtype), None if level is None else level.visible()


def draft_operations_for(device: torch.device, dtype: torch.dtype) -> DraftOperations:
    """Kernels if the device runs them, else PyTorch."""
    if has_kernels(device, dtype):
        from padrec.drafts.triton_draft_operations import TritonDraftOperations

        return TritonDraftOperations()
    return DraftOperations()
