"""Rows of scores: softmax, order and the k largest."""

import triton
import triton.language as tl


@triton.jit
def log_softmax(score):
    score -= tl.max(score, 0)
    return score - tl.log(tl.sum(tl.exp(score), 0))


@triton.jit
def _flip(bits):
    """Map the bits of float32 numbers to integers of the same order, or back."""
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def in_order(scores):
    """Integers in the order of float32 or float64 scores, of the same size."""
    if scores.dtype.primitive_bitwidth == 64:
        bits = scores.to(tl.int64, bitcast=True)
        order = tl.where(bits < 0, bits ^ 0x7FFFFFFFFFFFFFFF, bits)
    else:
        order = _flip(scores.to(tl.int32, bitcast=True))
    return order


@triton.jit
def largest(scores, inside, K: tl.constexpr, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr):
    """The K largest scores and their indices, both `[BLOCK_K]`, best first, of equal ones the first; K are inside."""
    index = tl.arange(0, BLOCK)
    rank = tl.arange(0, BLOCK_K)
    # With the index in the low bits all values differ, and the first of equal scores is the largest.
    rest = tl.where(inside, (in_order(scores).to(tl.int64) << 32) | (BLOCK - 1 - index), -0x8000000000000000)
    found = tl.zeros([BLOCK_K], tl.int64)
    for taken in range(K):
        top = tl.max(rest, 0)
        rest = tl.where(rest == top, -0x8000000000000000, rest)
        found = tl.where(rank == taken, top, found)
    return _flip((found >> 32).to(tl.int32)).to(tl.float32, bitcast=True), BLOCK - 1 - (found & 0xFFFFFFFF)
