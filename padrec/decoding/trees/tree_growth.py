"""How a dynamic tree grows: depth by depth the best children of what the draft has read, in the end the best of all."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from padrec.decoding.device.compiled import compiled
from padrec.decoding.lists.constraint import Constraint, Continuations
from padrec.decoding.lists.list_state import ListState, concatenate
from padrec.decoding.lists.sampling import Guess, masked_log_softmax
from padrec.decoding.lists.token_tree import TokenTree


class TreeGrowth:
    """See `Growth` and `TreeOperations.grow`; in plain PyTorch, for every constraint."""

    def __init__(
        self,
        root: Tensor,
        state: ListState,
        constraint: Constraint[ListState],
        guess: Guess,
        width: int,
        nodes: int,
    ) -> None:
        self._root, self._state, self._constraint, self._guess = root, state, constraint, guess
        self._width, self._nodes = width, nodes
        self._levels: list[_Level] = []
        self._states = state.unsqueeze()
        self._scores = torch.zeros(len(root), 1, dtype=torch.float32, device=root.device)
        self.frontier: Tensor
        self.parents: Tensor

    @property
    def slots(self) -> Tensor:
        """See `Growth.slots`."""
        return self._states.slot

    def grow(self, logits: Tensor, noise: Tensor | None) -> None:
        """See `Growth.grow`."""
        level = _grow(logits, self._scores, self._states, self._constraint, self._guess, noise, self._width)
        self._levels.append(level)
        self.frontier, self.parents = level.frontier, level.parents
        self._scores, self._states = level.scores, level.states

    def tree(self) -> TokenTree:
        """See `Growth.tree`."""
        return _assemble(self._root, self._state, self._levels, self._constraint, self._nodes)


@dataclass(frozen=True)
class _Level:
    """What grew from k nodes.

    Attributes:
        tokens: children of all nodes, one node's after the other's, best first, int64 `[B, k * width]`.
        child_scores: of those, float32 `[B, k * width]`.
        best: places of the best ones among them, best first, int64 `[B, width]`: the next frontier.
        parents: of those, their places among the nodes, int64 `[B, width]`.
        frontier: tokens of those, int64 `[B, width]`.
        scores: of those, `[B, width]`.
        states: list states after those, `[B, width]`.
    """

    tokens: Tensor
    child_scores: Tensor
    best: Tensor
    parents: Tensor
    frontier: Tensor
    scores: Tensor
    states: ListState


@compiled
def _grow(
    logits: Tensor,
    scores: Tensor,
    states: ListState,
    constraint: Constraint[ListState],
    guess: Guess,
    noise: Tensor | None,
    width: int,
) -> _Level:
    gains, tokens = _best_tokens(logits, constraint.continuations(states), guess, noise, width)
    # Log-probabilities are at most 0, so that no child ever outscores its parent.
    child_scores = (scores[..., None] + gains.float()).flatten(1)
    best_scores, best = child_scores.topk(width)
    parents = best // width
    tokens = tokens.flatten(1)
    frontier = tokens.gather(1, best)
    after = constraint.advance(states.gather(parents), frontier)
    return _Level(tokens, child_scores, best, parents, frontier, best_scores, after)


def _best_tokens(
    logits: Tensor, continuations: Continuations | None, guess: Guess, noise: Tensor | None, width: int
) -> tuple[Tensor, Tensor]:
    """Log-probabilities, minus infinity for tokens that may not follow, and tokens, `[B, k, width]`, best first."""
    noise = None if noise is None else noise[:, None].expand_as(logits)
    listed = logits
    if continuations is not None:
        listed = logits.gather(-1, continuations.tokens)
        noise = None if noise is None else noise.gather(-1, continuations.tokens)
    log_probs = masked_log_softmax(listed, None if continuations is None else continuations.free)
    gains, at = guess.log_chances(log_probs, noise).topk(min(width, listed.shape[-1]))
    tokens = at if continuations is None else continuations.tokens.gather(-1, at)
    fill = (0, max(0, width - listed.shape[-1]))
    return functional.pad(gains, fill, value=-torch.inf), functional.pad(tokens, fill)


@compiled
def _assemble(
    root: Tensor, state: ListState, levels: list[_Level], constraint: Constraint[ListState], n_nodes: int
) -> TokenTree:
    """The tree of the root, int64 `[B]`, and the best other nodes of all levels, `n_nodes` together."""
    first = root.new_zeros(len(root), 1)
    tokens, scores = [root[:, None]], [torch.zeros(first.shape, dtype=torch.float32, device=root.device)]
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
