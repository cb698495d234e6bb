"""The gate of a feed-forward layer, where its two halves come from one large product."""

import triton
import triton.language as tl

from padrec.decoding.device.kernels.early_launch import let_next_start, wait_for_input


@triton.jit
def gate_kernel(both, y, n, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    let_next_start(EARLY)
    token = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = unit < n
    wait_for_input(EARLY)
    gate = tl.load(both + token * 2 * n + unit, inside, 0.0).to(tl.float32)
    up = tl.load(both + token * 2 * n + n + unit, inside, 0.0).to(tl.float32)
    tl.store(y + token * n + unit, (gate * tl.sigmoid(gate) * up).to(y.dtype.element_ty), inside)
