"""The k largest of a row."""

import triton
import triton.language as tl


@triton.jit
def _turned(bits):
    """Makes the bits of float32 numbers integers in their order, and the other way round."""
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def in_order(numbers):
    """Integers of 32 bits in the order of float32 numbers."""
    return _turned(numbers.to(tl.int32, bitcast=True))


@triton.jit
def largest(numbers, inside, K: tl.constexpr, BLOCK: tl.constexpr, BLOCK_K: tl.constexpr):
    """The K greatest numbers and their places, best first, both `[BLOCK_K]`; of equal ones the first.

    There are at least K inside.
    """
    place = tl.arange(0, BLOCK)
    rank = tl.arange(0, BLOCK_K)
    # With the place behind it every number differs from all others, the first of equal ones the greatest.
    rest = tl.where(inside, (in_order(numbers).to(tl.int64) << 32) | (BLOCK - 1 - place), -0x8000000000000000)
    found = tl.zeros([BLOCK_K], tl.int64)
    for taken in range(K):
        top = tl.max(rest, 0)
        rest = tl.where(rest == top, -0x8000000000000000, rest)
        found = tl.where(rank == taken, top, found)
    number = _turned((found >> 32).to(tl.int32)).to(tl.float32, bitcast=True)
    return number, BLOCK - 1 - (found & 0xFFFFFFFF)
