"""Rounds in which a draft proposes nothing."""

from torch import Tensor

from padrec.decoding.lists.constraint import Constraint
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.sampling import Choice
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.trees.tree_expansion import DraftSteps, TreeExpansion
from padrec.decoding.trees.tree_operations import TreeOperations


class RootOnly(TreeExpansion):
    """Grows nothing: a round proposes the forced tokens after the root alone."""

    depth = 0
    nodes = 1
    leaves = 1
    draft_rows = 0
    draft_passes = 0

    def expand(
        self,
        root: Tensor,
        state: ListState,
        constraint: Constraint[ListState],
        choice: Choice,
        steps: DraftSteps,
        operations: TreeOperations,
    ) -> TokenTree:
        """The root of each row; see `TreeExpansion.expand`."""
        return TokenTree.root_only(root, state)
