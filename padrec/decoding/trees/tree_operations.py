"""The operations of a round that kernels speed up: trees that grow, and their forced tokens."""

from typing import Any

import torch
from torch import Tensor

from padrec.decoding.device.compiled import compiled
from padrec.decoding.device.early_launch import has_kernels
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.constraint import Constraint
from padrec.decoding.lists.free_decoding import FreeDecoding
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.sampling import Guess
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.trees.growth import Growth
from padrec.decoding.trees.tree_growth import TreeGrowth


class TreeOperations:
    """How trees grow, in plain PyTorch; `TritonTreeOperations` does the same by GPU kernels."""

    def grow(
        self,
        root: Tensor,
        state: ListState,
        constraint: Constraint[ListState],
        guess: Guess,
        width: int,
        depth: int,
        nodes: int,
    ) -> Growth:
        """Begin a tree for each row.

        Args:
            root: last token of each row, int64 `[B]`.
            state: list states after it, `[B]`.
            constraint: what lists may continue with.
            guess: how the draft guesses the target's choices.
            width: children of each node, and nodes of a frontier.
            depth: how often the tree grows.
            nodes: of the tree, the root included; at most as many as grow.
        """
        return TreeGrowth(root, state, constraint, guess, width, nodes)

    def add_forced_runs(
        self, tree: TokenTree, constraint: Constraint[ListState], leaves: int, length: int
    ) -> TokenTree:
        """The tree with `length` nodes after each of its `leaves` best leaves: the tokens that must follow them.

        Nodes that are not forced are not present.
        """
        return _with_forced_runs(tree.tokens, tree, constraint, leaves, length)


def tree_operations_for(device: torch.device, dtype: torch.dtype, constraint: Constraint[Any]) -> TreeOperations:
    """Kernels where the device runs them and they know the constraint, else plain PyTorch."""
    # Exact types: a subclass may decide otherwise than the kernels do.
    if type(constraint) in (CatalogConstraint, FreeDecoding) and has_kernels(device, dtype):
        from padrec.decoding.trees.triton_tree_operations import TritonTreeOperations

        return TritonTreeOperations()
    return TreeOperations()


@compiled
def _with_forced_runs(
    tokens: Tensor, tree: TokenTree, constraint: Constraint[ListState], n_leaves: int, length: int
) -> TokenTree:
    forced = constraint.forced(tree.states)  # [B, N]
    # Where the tree goes on it has the forced token already, unless its draft ignores the constraint.
    due = (forced >= 0) & tree.is_childless & tree.present
    _, leaves = torch.where(due, tree.scores, -torch.inf).topk(min(n_leaves, tokens.shape[1]))  # [B, E]
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
