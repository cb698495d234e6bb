"""The dynamic tree of EAGLE-2: the most probable proposals, whatever their shape."""

import math

from torch import Tensor

from padrec.catalog import InputError
from padrec.decoding.lists.constraint import Constraint
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.sampling import Choice, Guess
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.trees.tree_expansion import DraftSteps, TreeExpansion
from padrec.decoding.trees.tree_operations import TreeOperations


class DynamicTree(TreeExpansion):
    """Grows the `width` most probable nodes of each depth and keeps the best of all nodes (arXiv 2406.16858).

    A node's score is the log-probability, by the draft, that the target chooses its whole path (`Choice.log_chances`).
    At each depth the draft reads the `width` best nodes and each offers `width` children; in the end the best
    `nodes - 1` of all candidates stay beside the root.

    Args:
        depth: D, the deepest proposal, at least 1.
        width: nodes that the draft reads at each depth, and children of each, at least 1.
        nodes: N, nodes of the tree, the root included, at least 2.
        greedy_temperature: what the draft's log-probabilities are divided by in greedy decoding, above 0; 1 is EAGLE-2.
            The draft is trained on the target's distribution, but greedy decoding only asks for its best token, which
            the draft's best token is more often than its probability says: below 1 scores say so too, as in the
            temperature scaling of classifiers (arXiv 1706.04599). Lists stay the same.

    Raises:
        InputError: a value below its least.
    """

    def __init__(self, depth: int = 6, width: int = 10, nodes: int = 60, greedy_temperature: float = 1.0) -> None:
        if depth < 1 or width < 1 or nodes < 2:
            raise InputError(
                f"dynamic tree of depth {depth}, width {width}, nodes {nodes}: expected at least 1, 1 and 2"
            )
        if not 0 < greedy_temperature < math.inf:
            raise InputError(f"dynamic tree of greedy_temperature {greedy_temperature}: expected a number above 0")
        self.depth = depth
        self.greedy_temperature = greedy_temperature
        self.width = width
        self.nodes = min(nodes, 1 + width + (depth - 1) * width * width)
        self.leaves = 1 if width == 1 else self.nodes - 1
        self.draft_rows = (depth - 1) * width
        self.draft_passes = depth

    def expand(
        self,
        root: Tensor,
        state: ListState,
        constraint: Constraint[ListState],
        choice: Choice,
        steps: DraftSteps,
        operations: TreeOperations,
    ) -> TokenTree:
        """Grow one tree for each row; see `TreeExpansion.expand`."""
        guess = Guess.of(choice.sampling, self.greedy_temperature)
        growth = operations.grow(root, state, constraint, guess, self.width, self.depth, self.nodes)
        logits = steps.root_logits()[:, None]
        for depth in range(self.depth):
            if depth > 0:
                logits = steps.extend(growth.frontier, growth.parents, growth.slots, depth)
            growth.grow(logits, None if choice.noise is None else choice.noise[:, depth])
        return growth.tree()
