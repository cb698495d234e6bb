"""The operations of a round, second part: trees that grow, and their forced tokens."""

import torch
from torch import Tensor

from padrec.decoding.device.compiled import compiled
from padrec.decoding.lists.constraint import Constraint
from padrec.decoding.lists.list_operations import ListOperations
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.sampling import Guess
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.trees.growth import Growth
from padrec.decoding.trees.tree_growth import TreeGrowth


class TreeOperations(ListOperations):
    """What a round computes of lists and trees, in plain PyTorch; see `ListOperations`."""

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
