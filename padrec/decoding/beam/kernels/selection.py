"""The highest values of a row, in the order of their places."""

import triton
import triton.language as tl

from padrec.decoding.lists.kernels.scores import in_order


@triton.jit
def best_in_order_kernel(values, index, n, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """See `best_in_order`; one program for a row."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    inside = place < n
    value = tl.load(values + row * n + place, inside, float("-inf"))
    order = in_order(value + 0.0)  # a negative zero is a zero
    # Find the greatest number that COUNT values reach, or any that exactly these reach.
    least, most = tl.min(order, 0), tl.max(order, 0)
    reached = tl.sum(inside.to(tl.int32), 0)
    while (least < most) & (reached != COUNT):
        middle = (least | most) - ((least ^ most) >> 1)  # their mean, rounded up, without overflow
        found = tl.sum((inside & (order >= middle)).to(tl.int32), 0)
        enough = found >= COUNT
        reached = tl.where(enough, found, reached)
        least = tl.where(enough, middle, least)
        most = tl.where(enough, most, middle - 1)
    above = inside & (order > least)
    equal = inside & (order == least)
    # Two counts in one scan: what is above up to each place, and what is equal.
    counts = tl.cumsum(above.to(tl.int32) + (equal.to(tl.int32) << 16), 0)
    n_above = tl.sum(above.to(tl.int32), 0)
    before, equals = counts & 0xFFFF, counts >> 16
    missing = COUNT - n_above
    kept = above | (equal & (equals <= missing))
    # Minus infinity comes last, not where it is.
    lost = tl.max((equal & (value == float("-inf"))).to(tl.int32), 0) > 0
    rank = tl.where(lost, tl.where(above, before, n_above + equals), before + tl.minimum(equals, missing)) - 1
    tl.store(index + row * COUNT + rank, place.to(tl.int64), kept)
