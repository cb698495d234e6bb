"""One depth of a dynamic tree: the best children of the nodes that the draft has read, and the best of all children."""

from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional

from padrec.decoding.constraint import Continuations
from padrec.decoding.sampling import Guess, masked_log_softmax
from padrec.decoding.top_k import fits_a_row, top_k

# Triton comes with PyTorch's GPU builds only.
if find_spec("triton") is not None:
    import triton

    from padrec.decoding.kernels.top_k import frontier_kernel, guess_kernel


def best_tokens(
    logits: Tensor, continuations: Continuations | None, guess: Guess, noise: Tensor | None, width: int
) -> tuple[Tensor, Tensor]:
    """The tokens that the target most probably chooses behind each node.

    Args:
        logits: of the draft, `[B, k, V]`.
        continuations: `[B, k]`; None where every token may follow.
        guess: how probable that makes the target's choices.
        noise: of the tokens chosen there, `[B, V]`; None for greedy decoding.
        width: tokens of each node.

    Returns:
        Log-probabilities, at most 0, minus infinity for tokens that may not follow, and int64 tokens, both
        `[B, k, width]`, best first.
    """
    n = logits.shape[-1] if continuations is None else continuations.tokens.shape[-1]
    gains, tokens = _best_of(logits, continuations, guess, noise, min(width, n))
    fill = (0, max(0, width - n))
    return functional.pad(gains, fill, value=-torch.inf), functional.pad(tokens, fill)


def _best_of(
    logits: Tensor, continuations: Continuations | None, guess: Guess, noise: Tensor | None, width: int
) -> tuple[Tensor, Tensor]:
    n = logits.shape[-1] if continuations is None else continuations.tokens.shape[-1]
    if logits.is_cuda and logits.dtype != torch.float64 and fits_a_row(n, width):
        listed, free = (None, None) if continuations is None else (continuations.tokens, continuations.free)
        gains, tokens = _guess(logits, listed, free, noise, guess.logit_scale, guess.noise_scale, width)
        return gains, tokens
    noise = None if noise is None else noise[:, None].expand_as(logits)
    if continuations is None:
        return top_k(guess.log_chances(masked_log_softmax(logits, None), noise), width)
    noise = None if noise is None else noise.gather(-1, continuations.tokens)
    log_probs = masked_log_softmax(logits.gather(-1, continuations.tokens), continuations.free)
    gains, at = top_k(guess.log_chances(log_probs, noise), width)
    return gains, continuations.tokens.gather(-1, at)


@dataclass(frozen=True)
class Frontier:
    """The best of all children of one depth.

    Attributes:
        child_scores: of all children, one node's behind the other's, float32 `[B, k * width]`.
        scores: of the best ones, `[B, width]`, best first.
        best: their places among all children, int64 `[B, width]`.
        parents: their parents' places among the nodes, int64 `[B, width]`.
        tokens: int64 `[B, width]`.
    """

    child_scores: Tensor
    scores: Tensor
    best: Tensor
    parents: Tensor
    tokens: Tensor


def frontier_of(scores: Tensor, gains: Tensor, tokens: Tensor) -> Frontier:
    """Choose the best children, as many as a node has.

    Args:
        scores: of the nodes, float32 `[B, k]`.
        gains: of their children, at most 0, `[B, k, width]`.
        tokens: of their children, int64 `[B, k, width]`.
    """
    width = gains.shape[-1]
    if gains.is_cuda and gains.dtype == torch.float32 and fits_a_row(scores.shape[1] * width, width):
        return Frontier(*_frontier(scores, gains, tokens))
    child_scores = (scores[..., None] + gains.float()).flatten(1)
    best_scores, best = top_k(child_scores, width)
    return Frontier(child_scores, best_scores, best, best // width, tokens.flatten(1).gather(1, best))


# Operations of their own, so that the compiler takes them as they are.
@torch.library.custom_op("padrec::guess", mutates_args=())
def _guess(
    logits: Tensor,
    tokens: Tensor | None,
    free: Tensor | None,
    noise: Tensor | None,
    logit_scale: float,
    noise_scale: float,
    width: int,
) -> tuple[Tensor, Tensor]:
    logits = logits.contiguous()
    batch, n_nodes, n_tokens = logits.shape
    n = n_tokens if tokens is None else tokens.shape[-1]
    gains, guesses = _guesses_like(logits, width)
    guess_kernel[(batch * n_nodes,)](
        logits,
        None if tokens is None else tokens.contiguous(),
        None if free is None else free.contiguous().view(torch.uint8),
        noise,
        gains,
        guesses,
        n_nodes,
        n_tokens,
        n,
        0 if noise is None else noise.stride(0),
        logit_scale,
        noise_scale,
        LISTED=tokens is not None,
        NOISY=noise is not None,
        K=width,
        BLOCK=triton.next_power_of_2(n),
        num_warps=4,
    )
    return gains, guesses


@_guess.register_fake
def _(
    logits: Tensor,
    tokens: Tensor | None,
    free: Tensor | None,
    noise: Tensor | None,
    logit_scale: float,
    noise_scale: float,
    width: int,
) -> tuple[Tensor, Tensor]:
    return _guesses_like(logits, width)


def _guesses_like(logits: Tensor, width: int) -> tuple[Tensor, Tensor]:
    shape = (*logits.shape[:2], width)
    return logits.new_empty(shape, dtype=torch.float32), logits.new_empty(shape, dtype=torch.long)


@torch.library.custom_op("padrec::frontier", mutates_args=())
def _frontier(scores: Tensor, gains: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    found = _frontier_like(gains)
    n = gains.shape[1] * gains.shape[2]
    frontier_kernel[(len(gains),)](
        scores.contiguous(),
        gains.contiguous(),
        tokens.contiguous(),
        *found,
        n,
        WIDTH=gains.shape[2],
        BLOCK=triton.next_power_of_2(n),
        num_warps=4,
    )
    return found


@_frontier.register_fake
def _(scores: Tensor, gains: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _frontier_like(gains)


def _frontier_like(gains: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, n_nodes, width = gains.shape
    best, parents, tokens = (gains.new_empty(batch, width, dtype=torch.long) for _ in range(3))
    return gains.new_empty(batch, n_nodes * width), gains.new_empty(batch, width), best, parents, tokens
