"""Search through sorted suffixes."""

import triton
import triton.language as tl


@triton.jit
def suffix_search_kernel(
    context,
    known,
    bounds,
    tokens,
    order,
    low,
    high,
    n_lengths,
    n_orders,
    last,
    steps,
    BLOCK: tl.constexpr,
    PROBES: tl.constexpr,
):
    # One program for each row and order. It searches for all context lengths at once, and for each of them for two
    # places: the first suffix that is not smaller, and the first that is larger. A step waits twice for memory, so it
    # looks at several suffixes, which divide what is left into as many parts.
    program = tl.program_id(0).to(tl.int64)
    row = program // n_orders
    place, is_larger, part = tl.arange(0, BLOCK), tl.arange(0, 2), tl.arange(0, PROBES) + 1
    length = place[:, None] + 1
    src = n_lengths - length + place[None]
    inside = (place[None] < length) & (length <= n_lengths)
    pattern = tl.load(context + row * n_lengths + src, inside, 0).to(tl.int32)[:, None, None]
    power = tl.where(inside, 1 << (BLOCK - 1 - place[None]), 0)[:, None, None]
    begin = tl.zeros([BLOCK, 2], tl.int64) + tl.load(bounds + 2 * program)
    end = tl.zeros([BLOCK, 2], tl.int64) + tl.load(bounds + 2 * program + 1)
    for _ in range(steps):
        size = end - begin
        probe = begin[:, :, None] + size[:, :, None] * part // PROBES  # [BLOCK, 2, PROBES], the last of them the end
        start = tl.load(order + tl.minimum(probe, last))
        read = tl.load(tokens + start[:, :, :, None] + place, inside[:, None, None], 0)  # [BLOCK, 2, PROBES, BLOCK]
        sign = (read > pattern).to(tl.int32) - (read < pattern).to(tl.int32)
        before = (tl.sum(sign * power, 3) < is_larger[None, :, None]) & (probe < end[:, :, None])
        n_before = tl.sum(before.to(tl.int64), 2)
        end = begin + size * (n_before + 1) // PROBES
        begin = tl.where(n_before > 0, begin + size * n_before // PROBES + 1, begin)
    first, after = tl.split(begin)
    dst, asked = program * n_lengths + place, place < n_lengths
    tl.store(low + dst, first, asked)
    tl.store(high + dst, tl.where(place < tl.load(known + row), after, first), asked)
