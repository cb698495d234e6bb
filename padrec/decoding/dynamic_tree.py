"""The dynamic tree of EAGLE-2: the most probable proposals, whatever their shape."""

import torch
from torch import Tensor

from padrec.catalog import InputError
from padrec.decoding.constraint import Constraint, ListState, concatenate
from padrec.decoding.draft import DraftSteps
from padrec.decoding.sampling import Choice
from padrec.decoding.token_tree import TokenTree


class DynamicTree:
    """Grows the `width` most probable nodes of each depth and keeps the best of all nodes (arXiv 2406.16858).

    A node's score is the log-probability, by the draft, that the target chooses its whole path (`Choice.log_chances`).
    At each depth the draft reads the `width` best nodes and each offers `width` children; in the end the best
    `nodes - 1` of all candidates stay beside the root.

    Args:
        depth: D, the deepest proposal, at least 1.
        width: nodes that the draft reads at each depth, and children of each, at least 1.
        nodes: N, nodes of the tree, the root included, at least 2.

    Raises:
        InputError: a value below its least.
    """

    def __init__(self, depth: int = 6, width: int = 10, nodes: int = 60) -> None:
        if depth < 1 or width < 1 or nodes < 2:
            raise InputError(
                f"dynamic tree of depth {depth}, width {width}, nodes {nodes}: expected at least 1, 1 and 2"
            )
        self.depth = depth
        self.width = width
        self.nodes = min(nodes, 1 + width + (depth - 1) * width * width)
        self.leaves = self.nodes - 1
        self.draft_rows = (depth - 1) * width
        self.draft_passes = depth

    def expand(
        self, root: Tensor, state: ListState, constraint: Constraint[ListState], choice: Choice, steps: DraftSteps
    ) -> TokenTree:
        """Grow one tree for each row; see `TreeExpansion.expand`."""
        grown = _Candidates(root, state.unsqueeze())
        log_probs = choice.log_chances(steps.root_logits()[:, None], constraint.allowed(grown.frontier_states), 0)
        width = min(self.width, log_probs.shape[-1])
        grown.add(*log_probs.topk(width))
        for depth in range(1, self.depth):
            parents = grown.advance(width, constraint)
            logits = steps.extend(grown.frontier_tokens, parents, grown.frontier_states.slot, depth)
            log_probs = choice.log_chances(logits, constraint.allowed(grown.frontier_states), depth)
            grown.add(*log_probs.topk(width))
        return grown.best(self.nodes - 1, constraint, self.depth)


class _Candidates:
    """All nodes created in one round, in the order of their creation.

    The *frontier* is the nodes that the draft reads next; *readers* are all nodes it has read in this round, the root
    first. Only readers have children, so their list states are all that is kept.
    """

    def __init__(self, root: Tensor, states: ListState) -> None:
        batch = len(root)
        self.frontier_tokens = root[:, None]  # [B, k]
        self.frontier_states = states
        self._frontier_scores = torch.zeros(batch, 1, dtype=torch.float32, device=root.device)
        self._frontier_nodes = torch.zeros_like(self.frontier_tokens)  # index among all nodes
        self._first_reader = 0  # index of the frontier's first node among the readers
        self._reader_states = [states]
        self._tokens, self._scores = [self.frontier_tokens], [self._frontier_scores]
        self._parents, self._parent_readers = [self._frontier_nodes], [self._frontier_nodes]
        self._count = 1

    def add(self, log_probs: Tensor, tokens: Tensor) -> None:
        """Add the children of every frontier node, both `[B, k, width]`, best first."""
        batch, n_frontier, width = tokens.shape
        readers = self._first_reader + torch.arange(n_frontier, device=tokens.device)
        self._tokens.append(tokens.flatten(1))
        # Log-probabilities are at most 0, so that no child ever outscores its parent.
        self._scores.append((self._frontier_scores[..., None] + log_probs.float()).flatten(1))
        self._parents.append(self._frontier_nodes.repeat_interleave(width, dim=1))
        self._parent_readers.append(readers.repeat_interleave(width).expand(batch, -1))
        self._count += n_frontier * width

    def advance(self, width: int, constraint: Constraint[ListState]) -> Tensor:
        """Make the best `width` of the nodes added last the frontier; returns their parents in the old frontier."""
        created = self._tokens[-1].shape[1]
        scores, best = self._scores[-1].topk(width)  # [B, k]
        parents = self._parent_readers[-1].gather(1, best) - self._first_reader
        self._first_reader += self.frontier_tokens.shape[1]
        self.frontier_tokens = self._tokens[-1].gather(1, best)
        self._frontier_scores = scores
        self._frontier_nodes = self._count - created + best
        self.frontier_states = constraint.advance(self.frontier_states.gather(parents), self.frontier_tokens)
        self._reader_states.append(self.frontier_states)
        return parents

    def best(self, count: int, constraint: Constraint[ListState], max_depth: int) -> TokenTree:
        """The tree of the root and the `count` best other nodes."""
        tokens, scores = torch.cat(self._tokens, 1), torch.cat(self._scores, 1)
        parents, readers = torch.cat(self._parents, 1), torch.cat(self._parent_readers, 1)
        # Equal scores are frequent, as every forced token has log-probability 0. The stable sort then prefers the
        # older node, so that a kept node's parent is always kept; sorting the kept nodes puts it before its child.
        order = scores.sort(dim=1, descending=True, stable=True).indices[:, : count + 1]
        kept = order.sort(1).values  # [B, N], the root first
        tokens, readers, scores = tokens.gather(1, kept), readers.gather(1, kept), scores.gather(1, kept)
        parents = torch.searchsorted(kept, parents.gather(1, kept))
        before = concatenate(self._reader_states).gather(readers[:, 1:])
        states = concatenate([self._reader_states[0], constraint.advance(before, tokens[:, 1:])])
        return TokenTree.from_parents(tokens, parents, states, max_depth, scores)
