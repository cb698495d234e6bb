"""Forced tokens: where the constraint leaves one token, nobody needs to guess it."""

from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from padrec.decoding.device.compiled import compiled
from padrec.decoding.lists.constraint import CatalogConstraint, Constraint, ListState, is_plain
from padrec.decoding.lists.sampling import Choice
from padrec.decoding.lists.token_tree import MOST_NODES_OF_KERNELS, TokenTree
from padrec.decoding.lists.top_k import top_k
from padrec.decoding.trees.draft import DraftSteps, TreeExpansion

# Triton comes with PyTorch's GPU builds only.
if find_spec("triton") is not None:
    from padrec.decoding.trees.triton_growth import with_forced_runs


@dataclass(frozen=True)
class ForcedRuns:
    """Continues the most promising leaves of a tree by the tokens that must follow them.

    Attributes:
        leaves: E, leaves that are continued.
        length: R, forced tokens behind each of them at most; 0 leaves trees as they are.
    """

    leaves: int
    length: int

    @property
    def nodes(self) -> int:
        """Nodes that a tree gets in addition."""
        return self.leaves * self.length

    def extend(self, tree: TokenTree, constraint: Constraint[ListState]) -> TokenTree:
        """The tree with `length` nodes behind each of `leaves` nodes; those that are not forced are not present."""
        if self.length == 0:
            return tree
        fits = tree.tokens.shape[1] + self.nodes <= MOST_NODES_OF_KERNELS
        if tree.tokens.is_cuda and fits and is_plain(constraint, CatalogConstraint, "forced", "advance"):
            return with_forced_runs(tree, constraint, self.leaves, self.length)
        return _with_forced_runs(tree.tokens, tree, constraint, self.leaves, self.length)


@compiled
def _with_forced_runs(
    tokens: Tensor, tree: TokenTree, constraint: Constraint[ListState], n_leaves: int, length: int
) -> TokenTree:
    forced = constraint.forced(tree.states)  # [B, N]
    # Where the tree goes on it has the forced token already, unless its draft ignores the constraint.
    due = (forced >= 0) & tree.is_childless & tree.present
    _, leaves = top_k(torch.where(due, tree.scores, -torch.inf), min(n_leaves, tokens.shape[1]))  # [B, E]
    states, token, runs_on = tree.states.gather(leaves), forced.gather(1, leaves), due.gather(1, leaves)
    run, present, after = [], [], []
    for _ in range(length):
        # What is not present is read all the same, so it needs a token that the target knows.
        token = token.clamp(min=0)
        states = constraint.advance(states, token)
        run.append(token)
        present.append(runs_on)
        after.append(states)
        token = constraint.forced(states)
        runs_on = runs_on & (token >= 0)
    return tree.with_runs(leaves, torch.cat(run, 1), torch.cat(present, 1), after)


class RootOnly(TreeExpansion):
    """Grows nothing: what a round proposes are the forced tokens behind the root alone."""

    depth = 0
    nodes = 1
    leaves = 1
    draft_rows = 0
    draft_passes = 0

    def expand(
        self, root: Tensor, state: ListState, constraint: Constraint[ListState], choice: Choice, steps: DraftSteps
    ) -> TokenTree:
        """The root of each row; see `TreeExpansion.expand`."""
        return TokenTree.root_only(root, state)
