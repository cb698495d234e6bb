"""Tree operations by GPU kernels."""

from typing import Any, cast

from torch import Tensor

from padrec.decoding.device.early_launch import launch_options, launches_early
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.constraint import Constraint, FreeDecoding
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.sampling import Guess
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.lists.triton_arguments import States, block, list_arguments
from padrec.decoding.trees.kernels.forced_runs import forced_runs_kernel
from padrec.decoding.trees.tree_growth import TreeGrowth
from padrec.decoding.trees.tree_operations import TreeOperations
from padrec.decoding.trees.triton_growth import TreeArrays, TritonGrowth, empty_tree

# The kernels hold all pairs of nodes in registers, or a row of which they take the best values one by one.
_MOST_NODES, _LONGEST_ROW, _MOST_TAKEN = 256, 8192, 32

_FORCED_WARPS = 16  # more warps have less code each


class TritonTreeOperations(TreeOperations):
    """`TreeOperations` for the catalog constraint, or without one; PyTorch takes what is too large for registers."""

    def grow(
        self,
        root: Tensor,
        state: ListState,
        constraint: Constraint[Any],
        guess: Guess,
        width: int,
        depth: int,
        nodes: int,
    ) -> TreeGrowth:
        """See `TreeOperations.grow`."""
        known = cast(CatalogConstraint | FreeDecoding, constraint)
        followers = known.trie.max_children if isinstance(known, CatalogConstraint) else known.vocabulary.size
        longest = max(followers, 1 + width + (depth - 1) * width * width)
        if nodes <= _MOST_NODES and width <= _MOST_TAKEN and longest <= _LONGEST_ROW:
            return TritonGrowth(root, state, known, guess, width, depth, nodes)
        return super().grow(root, state, constraint, guess, width, depth, nodes)

    def add_forced_runs(self, tree: TokenTree, constraint: Constraint[Any], leaves: int, length: int) -> TokenTree:
        """See `TreeOperations.add_forced_runs`."""
        n_old = tree.tokens.shape[1]
        n_new = n_old + leaves * length
        if not isinstance(constraint, CatalogConstraint) or n_new > _MOST_NODES:
            return super().add_forced_runs(tree, constraint, leaves, length)
        grown = empty_tree(tree.states.squeeze(), n_new, tree.max_depth + length)
        forced_runs_kernel[(len(tree.tokens),)](
            old=TreeArrays.of(tree),
            old_states=States.of(tree.states),
            new=TreeArrays.of(grown),
            new_states=States.of(grown.states),
            N_OLD=n_old,
            LEAVES=leaves,
            LENGTH=length,
            BLOCK_E=block(leaves),
            BLOCK_N=block(n_old),
            BLOCK_M=block(n_new),
            BLOCK_L=block(constraint.list_length),
            num_warps=_FORCED_WARPS,
            **list_arguments(constraint),
            **launch_options(launches_early(tree.tokens.device)),
        )
        return grown
