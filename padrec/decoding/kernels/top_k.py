"""The k largest of a row."""

import triton
import triton.language as tl


@triton.jit
def top_k_kernel(values, best, indices, n, K: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    bits = tl.load(values + row * n + place, place < n, 0.0).to(tl.int32, bitcast=True)
    # As integers that are in the order of the numbers. With the place behind them all differ, the first the greatest.
    order = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)
    rest = tl.where(place < n, (order << 32) | (BLOCK - 1 - place), -0x8000000000000000)
    for rank in tl.static_range(K):
        top = tl.max(rest, 0)
        rest = tl.where(rest == top, -0x8000000000000000, rest)
        found = (top >> 32).to(tl.int32)
        number = tl.where(found < 0, found ^ 0x7FFFFFFF, found).to(tl.float32, bitcast=True)
        tl.store(best + row * K + rank, number)
        tl.store(indices + row * K + rank, BLOCK - 1 - (top & 0xFFFFFFFF))
