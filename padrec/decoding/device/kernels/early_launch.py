"""Early launch: what a kernel does while the previous one still runs.

Where the device supports it (`EARLY`), a kernel starts before the kernel whose results it reads has ended. While it
waits, it reads weights, which never change, and prefetches other inputs into the L2 cache, which is safe whatever is
written to them meanwhile.

An `ORDERED` kernel lets the next one start only after its own wait. The next one may therefore also read, before it
waits, all that was written before the ordered kernel.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def let_next_start(EARLY: tl.constexpr, ORDERED: tl.constexpr = False):
    """Call this first; if `ORDERED`, `wait_for_input` lets the next kernel start instead."""
    if EARLY and not ORDERED:
        gdc_launch_dependents()


@triton.jit
def wait_for_input(EARLY: tl.constexpr, ORDERED: tl.constexpr = False):
    if EARLY:
        gdc_wait()
        if ORDERED:
            gdc_launch_dependents()


@triton.jit
def move_to_l2(addresses):
    """Prefetch the cache lines at these addresses."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [addresses], dtype=tl.int32, is_pure=False, pack=1
    )


@triton.jit
def move_weights_to_l2(weight, out, n_out, first, last, n_in, GATED: tl.constexpr, BLOCK_K: tl.constexpr):
    """Prefetch columns `first` to `last` of the rows `out`; addresses out of range become the first of `weight`."""
    LINE: tl.constexpr = 1024 // weight.dtype.element_ty.primitive_bitwidth
    LINES: tl.constexpr = max(1, BLOCK_K // LINE)
    for start in range(first, last, BLOCK_K):
        column = start + LINE * tl.arange(0, LINES)
        inside = (out < n_out)[:, None] & (column < last)[None, :]
        place = out.to(tl.int64)[:, None] * n_in + column[None, :]
        move_to_l2(weight + tl.where(inside, place, 0))
        if GATED:
            move_to_l2(weight + tl.where(inside, place + n_out.to(tl.int64) * n_in, 0))
