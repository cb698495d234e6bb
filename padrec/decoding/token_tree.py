"""The proposals of one round."""

from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.decoding.constraint import ListState


@dataclass(frozen=True)
class TokenTree:
    """A tree of proposed tokens for each row; a chain is a tree of width one.

    Node 0 is the root: the row's last token, which the target has chosen but not yet read. Every parent stands
    before its children, and the children of a node carry different tokens.

    Attributes:
        tokens: int64 `[B, N]`.
        parents: index of each node's parent, int64 `[B, N]`; the root is its own.
        depths: int64 `[B, N]`, 0 for the root.
        ancestors: bool `[B, N, N]`; `[b, i, j]` says that j is i or an ancestor of i.
        states: list states after each node's token, `[B, N]`.
        max_depth: bound of `depths`.
    """

    tokens: Tensor
    parents: Tensor
    depths: Tensor
    ancestors: Tensor
    states: ListState
    max_depth: int

    @classmethod
    def from_parents(cls, tokens: Tensor, parents: Tensor, states: ListState, max_depth: int) -> "TokenTree":
        """Build depths and ancestors by following the parents `max_depth` times."""
        n_nodes = tokens.shape[1]
        nodes = torch.arange(n_nodes, device=tokens.device)
        ancestors = (nodes == nodes[:, None]).expand(len(tokens), -1, -1)
        current = parents
        for _ in range(max_depth):
            ancestors = ancestors | (current[..., None] == nodes)
            current = parents.gather(1, current)
        depths = ancestors.sum(-1) - 1
        return cls(tokens, parents, depths, ancestors, states, max_depth)

    @classmethod
    def root_only(cls, tokens: Tensor, states: ListState) -> "TokenTree":
        """The tree without proposals, from tokens `[B]` and states `[B]`."""
        column = tokens[:, None]
        zeros = torch.zeros_like(column)
        return cls(column, zeros, zeros, torch.ones_like(column, dtype=torch.bool)[..., None], states.unsqueeze(), 0)
