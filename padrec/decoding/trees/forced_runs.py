"""Forced tokens: where the constraint leaves one token, nobody needs to guess it."""

from dataclasses import dataclass

from padrec.decoding.lists.constraint import Constraint
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.trees.tree_operations import TreeOperations


@dataclass(frozen=True)
class ForcedRuns:
    """Continues the most promising leaves of a tree by the tokens that must follow them.

    Attributes:
        leaves: E, leaves that are continued.
        length: R, forced tokens after each of them at most; 0 leaves trees as they are.
    """

    leaves: int
    length: int

    @property
    def nodes(self) -> int:
        """Nodes that a tree gets in addition."""
        return self.leaves * self.length

    def extend(self, tree: TokenTree, constraint: Constraint[ListState], operations: TreeOperations) -> TokenTree:
        """See `TreeOperations.add_forced_runs`."""
        return tree if self.length == 0 else operations.add_forced_runs(tree, constraint, self.leaves, self.length)
