"""The k largest of a row, and what a tree grows by them."""

import triton
import triton.language as tl


@triton.jit
def _ordered(numbers, place, inside, BLOCK: tl.constexpr):
    """Integers in the order of float32 numbers. With the place behind them all differ, the first the greatest."""
    bits = numbers.to(tl.int32, bitcast=True)
    order = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)
    return tl.where(inside, (order << 32) | (BLOCK - 1 - place), -0x8000000000000000)


@triton.jit
def _greatest(ordered, BLOCK: tl.constexpr):
    """The greatest number, its place, and the others."""
    top = tl.max(ordered, 0)
    found = (top >> 32).to(tl.int32)
    number = tl.where(found < 0, found ^ 0x7FFFFFFF, found).to(tl.float32, bitcast=True)
    return number, BLOCK - 1 - (top & 0xFFFFFFFF), tl.where(ordered == top, -0x8000000000000000, ordered)


@triton.jit
def top_k_kernel(values, best, indices, n, K: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    rest = _ordered(tl.load(values + row * n + place, place < n, 0.0), place, place < n, BLOCK)
    for rank in tl.static_range(K):
        number, index, rest = _greatest(rest, BLOCK)
        tl.store(best + row * K + rank, number)
        tl.store(indices + row * K + rank, index)


@triton.jit
def guess_kernel(
    logits,
    tokens,
    free,
    noise,
    gains,
    guesses,
    n_nodes,
    n_tokens,
    n,
    noise_stride,
    logit_scale,
    noise_scale,
    LISTED: tl.constexpr,
    NOISY: tl.constexpr,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # One program for a node.
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    inside = place < n
    token, usable = place.to(tl.int64), inside
    if LISTED:
        token = tl.load(tokens + row * n + place, inside, 0)
        is_free = tl.load(free + row * n + place, inside, 0) != 0
        # Where nothing may follow, as behind the end of a list, whatever is chosen is never used.
        any_free = tl.max(is_free.to(tl.int32), 0) > 0
        usable = inside & (is_free | (not any_free))
    score = tl.load(logits + row * n_tokens + token, inside, 0.0).to(tl.float32) * logit_scale
    if NOISY:
        score += tl.load(noise + row // n_nodes * noise_stride + token, inside, 0.0) * noise_scale
    score = tl.where(usable, score, float("-inf"))
    score -= tl.max(score, 0)
    score -= tl.log(tl.sum(tl.exp(score), 0))
    rest = _ordered(score, place, inside, BLOCK)
    for rank in tl.static_range(K):
        number, index, rest = _greatest(rest, BLOCK)
        tl.store(gains + row * K + rank, number)
        guess = index
        if LISTED:
            guess = tl.load(tokens + row * n + index)
        tl.store(guesses + row * K + rank, guess)


@triton.jit
def frontier_kernel(
    scores,
    gains,
    tokens,
    child_scores,
    best_scores,
    best,
    parents,
    frontier,
    n,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # One program for a row, whose n children are WIDTH of each node.
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    inside = place < n
    score = tl.load(scores + row * (n // WIDTH) + place // WIDTH, inside, 0.0)
    score += tl.load(gains + row * n + place, inside, 0.0)
    tl.store(child_scores + row * n + place, score, inside)
    rest = _ordered(score, place, inside, BLOCK)
    for rank in tl.static_range(WIDTH):
        number, index, rest = _greatest(rest, BLOCK)
        tl.store(best_scores + row * WIDTH + rank, number)
        tl.store(best + row * WIDTH + rank, index)
        tl.store(parents + row * WIDTH + rank, index // WIDTH)
        tl.store(frontier + row * WIDTH + rank, tl.load(tokens + row * n + index))
