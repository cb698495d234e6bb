"""Trees that grow by fused GPU kernels."""

from typing import Any, cast

from torch import Tensor

from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.constraint import Constraint
from padrec.decoding.lists.free_decoding import FreeDecoding
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.sampling import Guess
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.lists.triton_arguments import fits_a_row
from padrec.decoding.trees.growth import Growth
from padrec.decoding.trees.tree_operations import TreeOperations
from padrec.decoding.trees.triton_growth import TritonGrowth, with_forced_runs

# The kernels hold what each node sees of all others in registers.
_MOST_NODES = 256


class TritonTreeOperations(TreeOperations):
    """`TreeOperations` for lists of a catalog, or of none; what is too large for registers is left to PyTorch."""

    def grow(
        self,
        root: Tensor,
        state: ListState,
        constraint: Constraint[Any],
        guess: Guess,
        width: int,
        depth: int,
        nodes: int,
    ) -> Growth:
        """See `TreeOperations.grow`."""
        known = cast(CatalogConstraint | FreeDecoding, constraint)
        followers = known.trie.max_children if isinstance(known, CatalogConstraint) else known.vocabulary.size
        candidates = 1 + width + (depth - 1) * width * width
        if nodes <= _MOST_NODES and fits_a_row(max(candidates, followers), width):
            return TritonGrowth(root, state, known, guess, width, depth, nodes)
        return super().grow(root, state, constraint, guess, width, depth, nodes)

    def add_forced_runs(self, tree: TokenTree, constraint: Constraint[Any], leaves: int, length: int) -> TokenTree:
        """See `TreeOperations.add_forced_runs`."""
        if isinstance(constraint, CatalogConstraint) and tree.tokens.shape[1] + leaves * length <= _MOST_NODES:
            return with_forced_runs(tree, constraint, leaves, length)
        return super().add_forced_runs(tree, constraint, leaves, length)
