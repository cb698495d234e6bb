"""The growth of a dynamic tree: at each depth the best children of the nodes that the draft has read."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from padrec.decoding.device.compiled import compiled
from padrec.decoding.lists.constraint import Constraint, Continuations
from padrec.decoding.lists.list_state import ListState, concatenate
from padrec.decoding.lists.sampling import Guess, masked_log_softmax
from padrec.decoding.lists.token_tree import TokenTree


class TreeShape(NamedTuple):
    """The shape of a dynamic tree."""

    width: int  # children of each node, and nodes of a frontier
    depth: int  # how often the tree grows
    nodes: int  # including the root; at most as many as grow

    @property
    def n_candidates(self) -> int:
        """Nodes that grow, without the root."""
        return self.width + (self.depth - 1) * self.width * self.width


class TreeGrowth:
    """A growing tree, in plain PyTorch for every constraint; arguments as in `TreeOperations.grow`.

    Attributes:
        frontier: tokens of the nodes that the draft reads next, int64 `[B, width]`.
        parents: index of each frontier node's parent among the nodes that the draft read last, int64 `[B, width]`.
    """

    frontier: Tensor
    parents: Tensor

    def __init__(
        self, root: Tensor, state: ListState, constraint: Constraint[Any], guess: Guess, shape: TreeShape
    ) -> None:
        self._root, self._state, self._constraint, self._guess, self._shape = root, state, constraint, guess, shape
        self._levels: list[_Level] = []
        self._created = 1  # nodes, the root included

    @property
    def slots(self) -> Tensor:
        """Slots of the frontier, int64 `[B, width]`."""
        return self._levels[-1].states.slot

    def grow(self, logits: Tensor, noise: Tensor | None, stays: Tensor | None = None) -> None:
        """Grow the children of the frontier, first of the root; the best of them become the next frontier.

        Children that are not allowed score minus infinity.

        Args:
            logits: the draft's after every node of the frontier, `[B, k, V]`.
            noise: of the tokens after these nodes, `[B, V]`; None for greedy decoding.
            stays: rows that do not grow and keep their frontier, whose nodes are then their own parents; bool `[B]`,
                not for the children of the root.
        """
        if self._levels:
            scores, states = self._levels[-1].scores, self._levels[-1].states
        else:
            scores = torch.zeros(len(logits), 1, dtype=torch.float32, device=logits.device)
            states = self._state.unsqueeze()
        level = _grow(logits, scores, states, self._constraint, self._guess, noise, self._shape.width)
        # Not in the compiled function, which would be compiled for each number.
        level = level._replace(best=self._created + level.best)
        if stays is not None:
            level = _held(stays, level, self._levels[-1])
        self._levels.append(level)
        self._created += level.tokens.shape[1]
        self.frontier, self.parents = level.frontier, level.parents

    def tree(self) -> TokenTree:
        """Make the tree of the root and the best nodes."""
        return _assemble(self._root, self._state, self._levels, self._constraint, self._shape.nodes)


class _Level(NamedTuple):
    """What grew from k nodes."""

    tokens: Tensor  # children of all nodes, node by node, each best first, int64 [B, k * width]
    child_scores: Tensor  # float32 [B, k * width]
    best: Tensor  # numbers of the best children, the next frontier, best first, among all nodes, int64 [B, width]
    parents: Tensor  # indices of the frontier's parents among the nodes, int64 [B, width]
    frontier: Tensor  # tokens, int64 [B, width]
    scores: Tensor  # of the frontier, float32 [B, width]
    states: ListState  # after the frontier's tokens, [B, width]


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
    # Log-probabilities are at most 0, so no child outscores its parent.
    child_scores = (scores[..., None] + gains.float()).flatten(1)
    best_scores, best = child_scores.topk(width)
    parents = best // width
    tokens = tokens.flatten(1)
    frontier = tokens.gather(1, best)
    after = constraint.advance(states.gather(parents), frontier)
    return _Level(tokens, child_scores, best, parents, frontier, best_scores, after)


@compiled
def _held(stays: Tensor, level: _Level, before: _Level) -> _Level:
    """The level, but for rows that stay the frontier before it; bool `[B]`."""

    def held(new: Tensor, old: Tensor) -> Tensor:
        return torch.where(stays.view(-1, *[1] * (new.ndim - 1)), old, new)

    return _Level(
        tokens=level.tokens,
        child_scores=level.child_scores.masked_fill(stays[:, None], -torch.inf),
        best=held(level.best, before.best),
        parents=held(level.parents, torch.arange(level.parents.shape[1], device=stays.device)),
        frontier=held(level.frontier, before.frontier),
        scores=held(level.scores, before.scores),
        states=level.states.map(held, before.states),
    )


def _best_tokens(
    logits: Tensor, continuations: Continuations | None, guess: Guess, noise: Tensor | None, width: int
) -> tuple[Tensor, Tensor]:
    """Log-probabilities, minus infinity for tokens that are not allowed, and tokens, `[B, k, width]`, best first."""
    noise = None if noise is None else noise[:, None].expand_as(logits)
    listed = logits
    if continuations is not None:
        listed = logits.gather(-1, continuations.tokens)
        noise = None if noise is None else noise.gather(-1, continuations.tokens)
    log_probs = masked_log_softmax(listed, None if continuations is None else continuations.free)
    chances = guess.log_chances(log_probs, noise)
    if continuations is not None:  # after the end of a list nothing is allowed, and nothing grows
        chances = chances.masked_fill(~continuations.free, -torch.inf)
    gains, best = chances.topk(min(width, listed.shape[-1]))
    tokens = best if continuations is None else continuations.tokens.gather(-1, best)
    fill = (0, max(0, width - listed.shape[-1]))
    return functional.pad(gains, fill, value=-torch.inf), functional.pad(tokens, fill)


@compiled
def _assemble(
    root: Tensor, state: ListState, levels: list[_Level], constraint: Constraint[ListState], n_nodes: int
) -> TokenTree:
    """The tree of the root, int64 `[B]`, and the best nodes of all levels, `n_nodes` in total."""
    first = root.new_zeros(len(root), 1)
    tokens, scores = [root[:, None]], [torch.zeros(first.shape, dtype=torch.float32, device=root.device)]
    # Nodes are numbered in the order of their creation. Readers are the nodes that the draft has read, the root first;
    # only they have children.
    parents, readers = [first], [first]
    frontier, n_readers = first, 0
    for level in levels:
        children = level.tokens.shape[1] // frontier.shape[1]
        reader = n_readers + torch.arange(frontier.shape[1], device=root.device)
        tokens.append(level.tokens)
        scores.append(level.child_scores)
        parents.append(frontier.repeat_interleave(children, dim=1))
        readers.append(reader.repeat_interleave(children).expand(len(root), -1))
        n_readers += frontier.shape[1]
        frontier = level.best
    all_tokens, all_scores, all_parents, all_readers = (torch.cat(v, 1) for v in (tokens, scores, parents, readers))
    # Equal scores are frequent: every forced token has log-probability 0. The stable sort prefers older nodes, so a
    # kept node's parent is kept, and sorting the kept nodes puts it first. Nodes that are not allowed pad the tree.
    order = all_scores.sort(dim=1, descending=True, stable=True).indices[:, :n_nodes]
    kept = order.sort(1).values  # [B, N], the root first
    tree_tokens = all_tokens.gather(1, kept)
    tree_parents = torch.searchsorted(kept, all_parents.gather(1, kept))
    read = concatenate([state.unsqueeze(), *(level.states for level in levels[:-1])])
    after = constraint.advance(read.gather(all_readers.gather(1, kept)[:, 1:]), tree_tokens[:, 1:])
    states = concatenate([state.unsqueeze(), after])
    tree_scores = all_scores.gather(1, kept)
    return TokenTree.from_parents(
        tree_tokens, tree_parents, states, len(levels), tree_scores, present=tree_scores > -torch.inf
    )
