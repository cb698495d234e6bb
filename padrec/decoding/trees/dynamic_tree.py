"""The dynamic tree of EAGLE-2, and the chain, its special case."""

from typing import Annotated

from padrec.catalog import PositiveFloat, PositiveInt, Range, check_arguments
from padrec.decoding.lists.sampling import Guess
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.trees.tree_expansion import TreeContext, TreeExpansion, check_size
from padrec.decoding.trees.tree_growth import TreeShape


class DynamicTree(TreeExpansion):
    """Grows the `width` most probable nodes of each depth and keeps the best of all nodes (arXiv 2406.16858).

    A node's score is the draft's log-probability that the target chooses its whole path (`Choice.log_chances`). At
    each depth the draft reads the `width` best nodes, and each gets `width` children; the tree is the root and the
    `nodes - 1` best candidates of all depths.

    Args:
        depth: D, the deepest proposal, at least 1.
        width: nodes that the draft reads at each depth, and children of each, at least 1.
        nodes: N, nodes of the tree, including the root, at least 2.
        greedy_temperature: divides the draft's log-probabilities in greedy decoding, above 0; 1 is EAGLE-2. The draft
            learns the target's distribution, but greedy decoding takes only the target's best token, which is the
            draft's best token more often than its probability says. Values below 1 correct this, like the temperature
            scaling of classifiers (arXiv 1706.04599). Lists do not change.

    Raises:
        InputError: a value below its minimum, or a tree that is too large.
    """

    def __init__(
        self,
        depth: PositiveInt = 6,
        width: PositiveInt = 10,
        nodes: Annotated[int, Range("at least 2", lambda nodes: nodes >= 2)] = 60,
        greedy_temperature: PositiveFloat = 1.0,
    ) -> None:
        check_arguments(DynamicTree, locals())
        self.depth = depth
        self.greedy_temperature = greedy_temperature
        self.width = width
        n_candidates = TreeShape(width, depth, nodes).n_candidates
        self.nodes = min(nodes, 1 + n_candidates)
        check_size(depth, self.nodes, n_candidates)
        self.leaves = 1 if width == 1 else self.nodes - 1
        self.draft_rows = (depth - 1) * width
        self.draft_passes = depth

    def expand(self, context: TreeContext) -> TokenTree:
        """See `TreeExpansion.expand`."""
        steps, choice, shape = context.steps, context.choice, TreeShape(self.width, self.depth, self.nodes)
        guess = Guess.of(choice.sampling, self.greedy_temperature)
        growth = context.operations.grow(context.root, context.state, context.constraint, guess, shape)
        logits = steps.root_logits()[:, None]
        for depth in range(self.depth):
            if depth > 0:
                logits = steps.extend(growth.frontier, growth.parents, growth.slots, depth)
            growth.grow(logits, None if choice.noise is None else choice.noise[:, depth])
        return growth.tree()


class Chain(DynamicTree):
    """The draft's most probable token at each depth: a dynamic tree of width one.

    Args:
        depth: D, the deepest proposal, at least 1.

    Raises:
        InputError: a depth below 1, or a chain that is too long.
    """

    def __init__(self, depth: PositiveInt = 5) -> None:
        check_arguments(Chain, locals())
        super().__init__(depth, width=1, nodes=depth + 1)
