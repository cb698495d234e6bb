"""The operations of a round that have kernels: growing trees, and adding forced tokens."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from padrec.decoding.device.compiled import compiled
from padrec.decoding.device.early_launch import has_kernels
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.constraint import Constraint, FreeDecoding
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.sampling import Guess
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.trees.tree_growth import TreeGrowth, TreeShape


class TreeOperations:
    """Tree operations in plain PyTorch; `TritonTreeOperations` has the same in GPU kernels."""

    def grow(
        self, root: Tensor, state: ListState, constraint: Constraint[Any], guess: Guess, shape: TreeShape
    ) -> TreeGrowth:
        """Begin a tree for each row; `root`, `state` and `constraint` as in `TreeContext`."""
        return TreeGrowth(root, state, constraint, guess, shape)

    def add_forced_runs(self, tree: TokenTree, constraint: Constraint[Any], leaves: int, length: int) -> TokenTree:
        """Add the forced tokens after the `leaves` best leaves, `length` nodes to each; the rest are not present."""
        return _add_forced_runs(tree.tokens, tree, constraint, leaves, length)


def tree_operations_for(device: torch.device, dtype: torch.dtype, constraint: Constraint[Any]) -> TreeOperations:
    """Kernels if the device runs them and they know the constraint, else plain PyTorch."""
    # Exact types: a subclass may decide otherwise than the kernels do.
    if type(constraint) in (CatalogConstraint, FreeDecoding) and has_kernels(device, dtype):
        from padrec.decoding.trees.triton_tree_operations import TritonTreeOperations

        return TritonTreeOperations()
    return TreeOperations()


@dataclass(frozen=True)
class ForcedRuns:
    """Continues the best leaves of a tree by their forced tokens."""

    leaves: int  # E, leaves that are continued
    length: int  # R, the most forced tokens after each leaf; 0 adds nothing

    @property
    def nodes(self) -> int:
        """Nodes added to a tree."""
        return self.leaves * self.length

    def extend(self, tree: TokenTree, constraint: Constraint[ListState], operations: TreeOperations) -> TokenTree:
        """See `TreeOperations.add_forced_runs`."""
        return tree if self.length == 0 else operations.add_forced_runs(tree, constraint, self.leaves, self.length)


@compiled
def _add_forced_runs(
    tokens: Tensor, tree: TokenTree, constraint: Constraint[ListState], n_leaves: int, length: int
) -> TokenTree:
    forced = constraint.forced(tree.states)  # [B, N]
    # A node with children has the forced token among them, unless the draft ignores the constraint.
    due = (forced >= 0) & tree.is_childless & tree.present
    _, leaves = torch.where(due, tree.scores, -torch.inf).topk(min(n_leaves, tokens.shape[1]))  # [B, E]
    states, token, present = tree.states.gather(leaves), forced.gather(1, leaves), due.gather(1, leaves)
    run, run_present, run_states = [], [], []
    for _ in range(length):
        # Absent nodes are read too, so they need a token that the target knows.
        token = token.clamp(min=0)
        states = constraint.advance(states, token)
        run.append(token)
        run_present.append(present)
        run_states.append(states)
        token = constraint.forced(states)
        present = present & (token >= 0)
    return tree.with_runs(leaves, torch.cat(run, 1), torch.cat(run_present, 1), run_states)
