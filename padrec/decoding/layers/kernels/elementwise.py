"""What follows or precedes a vendor matrix product: norm, residual addition, gate."""

import triton
import triton.language as tl

from padrec.decoding.device.kernels.early_launch import let_next_start, wait_for_input


@triton.jit
def _normed(x, scale, n, eps):
    """The RMS norm of one token, in float32 up to the weight."""
    exact = x.to(tl.float32)
    factor = tl.rsqrt(tl.sum(exact * exact, 0) / n + eps)
    return (exact * factor).to(x.dtype) * scale


@triton.jit
def norm_kernel(x, weight, y, n, eps, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    let_next_start(EARLY)
    token = tl.program_id(0).to(tl.int64)
    unit = tl.arange(0, BLOCK)
    inside = unit < n
    scale = tl.load(weight + unit, inside, 0.0)
    wait_for_input(EARLY)
    tl.store(y + token * n + unit, _normed(tl.load(x + token * n + unit, inside, 0.0), scale, n, eps), inside)


@triton.jit
def add_norm_kernel(residual, added, weight, y, normed, n, eps, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    let_next_start(EARLY)
    token = tl.program_id(0).to(tl.int64)
    unit = tl.arange(0, BLOCK)
    inside = unit < n
    place = token * n + unit
    scale = tl.load(weight + unit, inside, 0.0)
    wait_for_input(EARLY)
    exact = tl.load(residual + place, inside, 0.0).to(tl.float32) + tl.load(added + place, inside, 0.0).to(tl.float32)
    total = exact.to(y.dtype.element_ty)
    tl.store(y + place, total, inside)
    tl.store(normed + place, _normed(total, scale, n, eps), inside)


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
