"""The operations of a round by fused GPU kernels."""

from typing import Any, cast

from torch import Tensor

from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.chosen_tokens import ChosenTokens
from padrec.decoding.lists.constraint import Constraint, FreeDecoding
from padrec.decoding.lists.decoding_trace import RoundStatistics
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.sampling import Choice, Guess
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.lists.triton_arguments import fits_a_row
from padrec.decoding.lists.triton_choice import choose_in_catalog
from padrec.decoding.rounds.accepted import Accepted
from padrec.decoding.rounds.list_buffer import ListBuffer
from padrec.decoding.rounds.round_operations import RoundOperations
from padrec.decoding.rounds.triton_acceptance import accept_in_kernel
from padrec.decoding.trees.growth import Growth
from padrec.decoding.trees.tree_expansion import TreeExpansion
from padrec.decoding.trees.triton_growth import TritonGrowth, with_forced_runs

# The kernels that make and read trees hold what each node sees of all others in registers.
_MOST_NODES = 256


class TritonRoundOperations(RoundOperations):
    """`RoundOperations` for lists of a catalog, or of none; what is too large for registers is left to PyTorch."""

    def choose(
        self, logits: Tensor, states: ListState, depths: Tensor, choice: Choice, constraint: Constraint[Any]
    ) -> ChosenTokens:
        """See `ListOperations.choose`."""
        if (
            isinstance(constraint, CatalogConstraint)
            and not choice.cuts_off
            and fits_a_row(constraint.trie.max_children, 1)
        ):
            return choose_in_catalog(logits, states, depths, choice, constraint)
        return super().choose(logits, states, depths, choice, constraint)

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

    def accept(
        self,
        tree: TokenTree,
        chosen: ChosenTokens,
        lists: ListBuffer,
        statistics: RoundStatistics,
        expansion: TreeExpansion,
    ) -> Accepted:
        """See `RoundOperations.accept`."""
        if tree.tokens.shape[1] <= _MOST_NODES:
            return accept_in_kernel(tree, chosen, lists, statistics, expansion)
        return super().accept(tree, chosen, lists, statistics, expansion)
