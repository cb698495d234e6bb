"""Token trees: the proposals of one round."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from padrec.decoding.lists.list_state import ListState, concatenate
from padrec.decoding.lists.tensor_record import pick


@dataclass(frozen=True)
class TokenTree:
    """A tree of proposed tokens for each row; a chain is a tree of width one.

    Node 0 is the root: the row's last token, which the target has chosen but not read. Parents come before their
    children, and the present children of a node have distinct tokens.
    """

    tokens: Tensor  # int64 [B, N]
    parents: Tensor  # index of each node's parent, int64 [B, N]; the root is its own
    depths: Tensor  # int64 [B, N], 0 for the root
    ancestors: Tensor  # bool [B, N, N]; [b, i, j] is whether j is i or an ancestor of i
    states: ListState  # list states after the nodes' tokens, [B, N]
    scores: Tensor  # the draft's log-probability of each node's path, [B, N]
    present: Tensor  # bool [B, N]; False for padding nodes, which are read but never kept
    max_depth: int  # upper bound of `depths`

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
        """Derive depths and ancestors from the parents; scores default to 0, and nodes to present."""
        n_nodes = tokens.shape[1]
        nodes = torch.arange(n_nodes, device=tokens.device)
        ancestors = (nodes == nodes[:, None]).expand(len(tokens), -1, -1)
        current = parents
        for _ in range(max_depth):
            ancestors = ancestors | (current[..., None] == nodes)
            current = parents.gather(1, current)
        depths = ancestors.sum(-1) - 1
        if scores is None:
            scores = torch.zeros(tokens.shape, dtype=torch.float32, device=tokens.device)
        if present is None:
            present = torch.ones_like(tokens, dtype=torch.bool)
        return cls(tokens, parents, depths, ancestors, states, scores, present, max_depth)

    @classmethod
    def root_only(cls, tokens: Tensor, states: ListState) -> "TokenTree":
        """Make a tree without proposals from tokens `[B]` and states `[B]`."""
        zeros, ones, scores = _root_arrays(len(tokens), tokens.device)
        return cls(tokens[:, None], zeros, zeros, ones[..., None], states.unsqueeze(), scores, ones, max_depth=0)

    @property
    def is_childless(self) -> Tensor:
        """Whether each node has no children, bool `[B, N]`."""
        # The root does not count as its own child.
        return ~torch.zeros_like(self.present).scatter(1, self.parents[:, 1:], True)

    def with_runs(self, leaves: Tensor, tokens: Tensor, present: Tensor, states: list[ListState]) -> "TokenTree":
        """Append a chain of R tokens to each of some leaves, with the leaf's score.

        Args:
            leaves: int64 `[B, E]`.
            tokens: int64 `[B, R * E]`: the first token of every chain, then the second ones, and so on.
            present: bool `[B, R * E]`; tokens after an absent one must be absent.
            states: list states after the tokens, R times `[B, E]`.
        """
        (batch, n_nodes), n_leaves = self.tokens.shape, leaves.shape[1]
        index = torch.arange(tokens.shape[1], device=leaves.device)
        parents = torch.cat([leaves, (n_nodes + index[:-n_leaves]).expand(batch, -1)], 1)
        chain = (index % n_leaves).expand(batch, -1)  # each new node's chain
        own = (index <= index[:, None]) & (chain[:, None] == chain[..., None])  # [B, R * E, R * E]
        leaf = leaves.gather(1, chain)
        above = pick(self.ancestors, leaf)  # [B, R * E, N]
        # Not `pad`: the compiler pads a single boolean with True (PyTorch 2.11, on a GPU).
        outside = self.ancestors.new_zeros(batch, n_nodes, len(index))
        ancestors = torch.cat([torch.cat([self.ancestors, outside], 2), torch.cat([above, own], 2)], 1)
        return TokenTree(
            tokens=torch.cat([self.tokens, tokens], 1),
            parents=torch.cat([self.parents, parents], 1),
            depths=torch.cat([self.depths, self.depths.gather(1, leaf) + index // n_leaves + 1], 1),
            ancestors=ancestors,
            states=concatenate([self.states, *states]),
            scores=torch.cat([self.scores, self.scores.gather(1, leaf)], 1),
            present=torch.cat([self.present, present], 1),
            max_depth=self.max_depth + len(index) // n_leaves,
        )


@cache
def _root_arrays(batch: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Zeros, True and scores `[B, 1]` for `root_only`, shared by all trees: making them takes longer than a round."""
    with torch.inference_mode(False):
        zeros = torch.zeros(batch, 1, dtype=torch.long, device=device)
        return zeros, torch.ones_like(zeros, dtype=torch.bool), torch.zeros_like(zeros, dtype=torch.float32)
