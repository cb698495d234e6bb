"""The dynamic tree of EAGLE-2: the most probable proposals, whatever their shape."""

import math

import torch
from torch import Tensor

from padrec.catalog import InputError
from padrec.decoding.compiled import compiled
from padrec.decoding.constraint import Constraint, ListState, concatenate
from padrec.decoding.draft import DraftSteps
from padrec.decoding.sampling import Choice, Guess
from padrec.decoding.token_tree import TokenTree
from padrec.decoding.tree_growth import Level, grow


class DynamicTree:
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
        self.leaves = self.nodes - 1
        self.draft_rows = (depth - 1) * width
        self.draft_passes = depth

    def expand(
        self, root: Tensor, state: ListState, constraint: Constraint[ListState], choice: Choice, steps: DraftSteps
    ) -> TokenTree:
        """Grow one tree for each row; see `TreeExpansion.expand`."""
        states = state.unsqueeze()
        scores = torch.zeros(len(root), 1, device=root.device)
        logits = steps.root_logits()[:, None]
        guess = Guess.of(choice.sampling, self.greedy_temperature)
        levels: list[Level] = []
        for depth in range(self.depth):
            if depth > 0:
                logits = steps.extend(levels[-1].frontier, levels[-1].parents, states.slot, depth)
            noise = None if choice.noise is None else choice.noise[:, depth]
            levels.append(grow(logits, scores, states, constraint, guess, noise, self.width))
            scores, states = levels[-1].scores, levels[-1].states
        return _assemble(root, state, levels, constraint, self.nodes)


@compiled
def _assemble(
    root: Tensor, state: ListState, levels: list[Level], constraint: Constraint[ListState], n_nodes: int
) -> TokenTree:
    """The tree of the root, int64 `[B]`, and the best other nodes of all levels, `n_nodes` together."""
    first = root.new_zeros(len(root), 1)
    tokens, scores = [root[:, None]], [torch.zeros(first.shape, device=root.device)]
    parents, readers = [first], [first]
    # All nodes in the order of their creation; *readers* are those that the draft read, the root first. Only readers
    # have children.
    frontier, created, n_readers = first, 1, 0
    for level in levels:
        children = level.tokens.shape[1] // frontier.shape[1]
        reader = n_readers + torch.arange(frontier.shape[1], device=root.device)
        tokens.append(level.tokens)
        scores.append(level.child_scores)
        parents.append(frontier.repeat_interleave(children, dim=1))
        readers.append(reader.repeat_interleave(children).expand(len(root), -1))
        n_readers += frontier.shape[1]
        frontier = created + level.best
        created += level.tokens.shape[1]
    all_tokens, all_scores, all_parents, all_readers = (torch.cat(v, 1) for v in (tokens, scores, parents, readers))
    # Equal scores are frequent, as every forced token has log-probability 0. The stable sort then prefers the older
    # node, so that a kept node's parent is always kept; sorting the kept nodes puts it before its child. What may not
    # follow, and what stands behind it, fills trees up.
    order = all_scores.sort(dim=1, descending=True, stable=True).indices[:, :n_nodes]
    kept = order.sort(1).values  # [B, N], the root first
    tree_tokens = all_tokens.gather(1, kept)
    tree_parents = torch.searchsorted(kept, all_parents.gather(1, kept))
    before = concatenate([state.unsqueeze(), *(level.states for level in levels[:-1])])
    behind = constraint.advance(before.gather(all_readers.gather(1, kept)[:, 1:]), tree_tokens[:, 1:])
    states = concatenate([state.unsqueeze(), behind])
    tree_scores = all_scores.gather(1, kept)
    return TokenTree.from_parents(
        tree_tokens, tree_parents, states, len(levels), tree_scores, present=tree_scores > -torch.inf
    )
