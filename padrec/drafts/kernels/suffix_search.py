"""Search through sorted suffixes."""

import triton
import triton.language as tl


@triton.jit
def suffix_search_kernel(
    context, known, bounds, tokens, order, low, high, n_lengths, n_orders, last, steps, BLOCK: tl.constexpr
):
    # One program for each row and order. It searches for all context lengths at once, and for each of them for two
    # places: the first suffix that is not smaller, and the first that is larger.
    program = tl.program_id(0).to(tl.int64)
    row = program // n_orders
    place, is_larger = tl.arange(0, BLOCK), tl.arange(0, 2)
    length = place[:, None] + 1
    src = n_lengths - length + place[None]
    inside = (place[None] < length) & (length <= n_lengths)
    pattern = tl.load(context + row * n_lengths + src, inside, 0).to(tl.int32)[:, None]
    power = tl.where(inside, 1 << (BLOCK - 1 - place[None]), 0)[:, None]
    begin = tl.zeros([BLOCK, 2], tl.int64) + tl.load(bounds + 2 * program)
    end = tl.zeros([BLOCK, 2], tl.int64) + tl.load(bounds + 2 * program + 1)
    for _ in range(steps):
        middle = (begin + end) // 2
        start = tl.load(order + tl.minimum(middle, last))
        read = tl.load(tokens + start[:, :, None] + place[None, None], inside[:, None], 0)  # [BLOCK, 2, BLOCK]
        sign = (read > pattern).to(tl.int32) - (read < pattern).to(tl.int32)
        before = (tl.sum(sign * power, 2) < is_larger[None]) & (middle < end)
        begin, end = tl.where(before, middle + 1, begin), tl.where(before, end, middle)
    first, after = tl.split(begin)
    dst, asked = program * n_lengths + place, place < n_lengths
    tl.store(low + dst, first, asked)
    tl.store(high + dst, tl.where(place < tl.load(known + row), after, first), asked)
