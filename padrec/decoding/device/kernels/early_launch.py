"""What a kernel does while the one before it still runs.

Where the device can (`EARLY`), a kernel is launched before the one whose results it reads has ended: it then asks for
weights, and moves what it will read besides into the L2 cache, while it waits. Weights alone are read before the wait,
since nothing changes them; moving a line to the L2 cache changes no value, whatever is written to it meanwhile.

The kernel behind one that lets it start only after its own wait (`ORDERED`) knows more: all that was written before
that one is there. It may read this too before it waits.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def let_next_start(EARLY: tl.constexpr, ORDERED: tl.constexpr = False):
    """To be called first; where `ORDERED`, it is `wait_for_input` that lets the next kernel start."""
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
    """Ask for the cache lines at these addresses."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [addresses], dtype=tl.int32, is_pure=False, pack=1
    )


@triton.jit
def move_weights_to_l2(weight, out, n_out, first, last, n_in, GATED: tl.constexpr, BLOCK_K: tl.constexpr):
    """Ask for columns `first` to `last` of the outputs `out`; addresses outside become the first of `weight`."""
    LINE: tl.constexpr = 1024 // weight.dtype.element_ty.primitive_bitwidth
    LINES: tl.constexpr = max(1, BLOCK_K // LINE)
    for start in range(first, last, BLOCK_K):
        column = start + LINE * tl.arange(0, LINES)
        inside = (out < n_out)[:, None] & (column < last)[None, :]
        place = out.to(tl.int64)[:, None] * n_in + column[None, :]
        move_to_l2(weight + tl.where(inside, place, 0))
        if GATED:
            move_to_l2(weight + tl.where(inside, place + n_out.to(tl.int64) * n_in, 0))
