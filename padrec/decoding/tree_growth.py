"""One depth of a dynamic tree: the best children of the nodes that the draft has read, and the best of all children."""

from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional

from padrec.decoding.compiled import compiled
from padrec.decoding.constraint import CatalogConstraint, Constraint, Continuations, FreeDecoding, ListState
from padrec.decoding.sampling import Guess, masked_log_softmax
from padrec.decoding.top_k import fits_a_row, top_k

# Triton comes with PyTorch's GPU builds only.
if find_spec("triton") is not None:
    from padrec.decoding.triton_growth import grow_by_kernels


@dataclass(frozen=True)
class Level:
    """What grew from k nodes.

    Attributes:
        tokens: children of all nodes, one node's behind the other's, best first, int64 `[B, k * width]`.
        child_scores: of those, float32 `[B, k * width]`.
        best: places of the best ones among them, best first, int64 `[B, width]`: the next nodes to be read.
        parents: of those, their places among the nodes, int64 `[B, width]`.
        frontier: tokens of those, int64 `[B, width]`.
        scores: of those, `[B, width]`.
        states: list states behind those, `[B, width]`.
    """

    tokens: Tensor
    child_scores: Tensor
    best: Tensor
    parents: Tensor
    frontier: Tensor
    scores: Tensor
    states: ListState


def grow(
    logits: Tensor,
    scores: Tensor,
    states: ListState,
    constraint: Constraint[ListState],
    guess: Guess,
    noise: Tensor | None,
    width: int,
) -> Level:
    """Grow the children of some nodes, and choose the best of all, as many as each node has.

    Children that may not follow score minus infinity.

    Args:
        logits: of the draft behind every node, `[B, k, V]`.
        scores: of the nodes, float32 `[B, k]`.
        states: list states behind them, `[B, k]`.
        constraint: what lists may continue with.
        guess: how the draft guesses the target's choices.
        noise: of the tokens chosen behind these nodes, `[B, V]`; None for greedy decoding.
        width: children of each node.
    """
    if _has_kernels(logits, constraint, width):
        return Level(*grow_by_kernels(logits, scores, states, constraint, guess, noise, width))
    return _grow(logits, scores, states, constraint, guess, noise, width)


def _has_kernels(logits: Tensor, constraint: Constraint[ListState], width: int) -> bool:
    if not logits.is_cuda or logits.dtype == torch.float64:
        return False
    if isinstance(constraint, CatalogConstraint):
        return fits_a_row(constraint.trie.max_children, width)
    return isinstance(constraint, FreeDecoding) and fits_a_row(logits.shape[-1], width)


@compiled
def _grow(
    logits: Tensor,
    scores: Tensor,
    states: ListState,
    constraint: Constraint[ListState],
    guess: Guess,
    noise: Tensor | None,
    width: int,
) -> Level:
    gains, tokens = _best_tokens(logits, constraint.continuations(states), guess, noise, width)
    # Log-probabilities are at most 0, so that no child ever outscores its parent.
    child_scores = (scores[..., None] + gains.float()).flatten(1)
    best_scores, best = top_k(child_scores, width)
    parents = best // width
    tokens = tokens.flatten(1)
    frontier = tokens.gather(1, best)
    after = constraint.advance(states.gather(parents), frontier)
    return Level(tokens, child_scores, best, parents, frontier, best_scores, after)


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
    gains, at = top_k(guess.log_chances(log_probs, noise), min(width, listed.shape[-1]))
    tokens = at if continuations is None else continuations.tokens.gather(-1, at)
    fill = (0, max(0, width - listed.shape[-1]))
    return functional.pad(gains, fill, value=-torch.inf), functional.pad(tokens, fill)
