"""The proposals of one round."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from padrec.decoding.lists.list_state import ListState, concatenate


@dataclass(frozen=True)
class TokenTree:
    """A tree of proposed tokens for each row; a chain is a tree of width one.

    Node 0 is the root: the row's last token, which the target has chosen but not yet read. Every parent stands
    before its children, and the children of a node that are present carry different tokens.

    Attributes:
        tokens: int64 `[B, N]`.
        parents: index of each node's parent, int64 `[B, N]`; the root is its own.
        depths: int64 `[B, N]`, 0 for the root.
        ancestors: bool `[B, N, N]`; `[b, i, j]` says that j is i or an ancestor of i.
        states: list states after each node's token, `[B, N]`.
        scores: the draft's log-probability of each node's path, `[B, N]`.
        present: bool `[B, N]`; False for nodes that only fill a row up, which are read but never kept.
        max_depth: bound of `depths`.
    """

    tokens: Tensor
    parents: Tensor
    depths: Tensor
    ancestors: Tensor
    states: ListState
    scores: Tensor
    present: Tensor
    max_depth: int

    @classmethod
    def from_parents(
        cls,
        tokens: Tensor,
        parents: Tensor,
        states: ListState,
        max_depth: int,
        scores: Tensor | None = None,
        present: Tensor | None = None,
    ) -> "TokenTree":
        """Build depths and ancestors by following the parents `max_depth` times.

        Without `scores` no node is more promising than another; without `present` all are present.
        """
        n_nodes = tokens.shape[1]
        nodes = torch.arange(n_nodes, device=tokens.device)
        ancestors = (nodes == nodes[:, None]).expand(len(tokens), -1, -1)
        current = parents
        for _ in range(max_depth):
            ancestors = ancestors | (current[..., None] == nodes)
            current = parents.gather(1, current)
        depths = ancestors.sum(-1) - 1
        if scores is None:
            # Whatever the precision of the model, which may be the default one.
            scores = torch.zeros(tokens.shape, dtype=torch.float32, device=tokens.device)
        if present is None:
            present = torch.ones_like(tokens, dtype=torch.bool)
        return cls(tokens, parents, depths, ancestors, states, scores, present, max_depth)

    @classmethod
    def root_only(cls, tokens: Tensor, states: ListState) -> "TokenTree":
        """The tree without proposals, from tokens `[B]` and states `[B]`."""
        zeros, ones, scores = _of_roots(len(tokens), tokens.device)
        return cls(tokens[:, None], zeros, zeros, ones[..., None], states.unsqueeze(), scores, ones, max_depth=0)

    @property
    def is_childless(self) -> Tensor:
        """Whether each node is no node's parent, bool `[B, N]`."""
        # The root is its own parent, which makes it no parent of another node.
        return ~torch.zeros_like(self.present).scatter(1, self.parents[:, 1:], True)

    def with_runs(self, leaves: Tensor, tokens: Tensor, present: Tensor, states: list[ListState]) -> "TokenTree":
        """The tree with one more chain behind each of some leaves, its tokens as certain as the leaf.

        Args:
            leaves: int64 `[B, E]`.
            tokens: int64 `[B, R * E]`: the first token of every chain, then the second ones, and so on.
            present: which of them count, bool `[B, R * E]`; what stands behind an absent token is absent.
            states: list states after them, R times `[B, E]`.
        """
        (batch, n_nodes), n_leaves = self.tokens.shape, leaves.shape[1]
        place = torch.arange(tokens.shape[1], device=leaves.device)
        parents = torch.cat([leaves, (n_nodes + place[:-n_leaves]).expand(batch, -1)], 1)
        chain = (place % n_leaves).expand(batch, -1)  # which chain each new node stands in
        own = (place <= place[:, None]) & (chain[:, None] == chain[..., None])  # [B, R * E, R * E]
        leaf = leaves.gather(1, chain)
        above = self.ancestors.gather(1, leaf[..., None].expand(-1, -1, n_nodes))  # [B, R * E, N]
        # Not by padding: the compiler pads a single truth value with True (seen in PyTorch 2.11, on a GPU).
        outside = self.ancestors.new_zeros(batch, n_nodes, len(place))
        grown = torch.cat([torch.cat([self.ancestors, outside], 2), torch.cat([above, own], 2)], 1)
        return TokenTree(
            tokens=torch.cat([self.tokens, tokens], 1),
            parents=torch.cat([self.parents, parents], 1),
            depths=torch.cat([self.depths, self.depths.gather(1, leaf) + place // n_leaves + 1], 1),
            ancestors=grown,
            states=concatenate([self.states, *states]),
            scores=torch.cat([self.scores, self.scores.gather(1, leaf)], 1),
            present=torch.cat([self.present, present], 1),
            max_depth=self.max_depth + len(place) // n_leaves,
        )


@cache
def _of_roots(batch: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Zeros, truth values and scores `[B, 1]` of trees without proposals; nothing ever writes to them."""
    # Kept, since making them in every round would take longer than all else between two passes.
    with torch.inference_mode(False):
        zeros = torch.zeros(batch, 1, dtype=torch.long, device=device)
        return zeros, torch.ones_like(zeros, dtype=torch.bool), torch.zeros_like(zeros, dtype=torch.float32)
