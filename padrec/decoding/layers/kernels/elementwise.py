"""What follows or precedes a vendor matrix product: norm, residual addition, gate."""

import triton
import triton.language as tl

from padrec.decoding.device.kernels.early_launch import let_next_start, wait_for_input


@triton.jit
def norm_kernel(x, added, weight, y, normed, n, eps, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    # One token's RMS norm, in float32 up to the weight; with `added`, of the sum, which is stored as `y`.
    let_next_start(EARLY)
    token = tl.program_id(0).to(tl.int64)
    unit = tl.arange(0, BLOCK)
    inside = unit < n
    place = token * n + unit
    scale = tl.load(weight + unit, inside, 0.0)
    wait_for_input(EARLY)
    total = tl.load(x + place, inside, 0.0)
    if added is not None:
        exact_sum = total.to(tl.float32) + tl.load(added + place, inside, 0.0).to(tl.float32)
        total = exact_sum.to(y.dtype.element_ty)
        tl.store(y + place, total, inside)
    exact = total.to(tl.float32)
    factor = tl.rsqrt(tl.sum(exact * exact, 0) / n + eps)
    tl.store(normed + place, (exact * factor).to(total.dtype) * scale, inside)


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
