"""Linear maps whose programs stream weights and inputs."""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from padrec.decoding.device.kernels.early_launch import let_next_start, move_weights_to_l2, wait_for_input


class Inputs(NamedTuple):
    """The input of a linear map, and the norm before it."""

    x: Tensor  # [T, n]; with `squares`, already multiplied by the norm's weight
    norm: Tensor | None = None  # weight of a norm that `vector_kernel` computes, [n]
    squares: Tensor | None = None  # partial sums of each token's squares, float32 [T, n_parts]
    n_parts: int = 0
    eps: float = 0.0


class Outputs(NamedTuple):
    """The result of a linear map, what is added to it, and what is prepared for the next norm."""

    y: Tensor  # [T, m]
    bias: Tensor | None = None  # [m]
    residual: Tensor | None = None  # [T, m]
    next_norm: Tensor | None = None  # weight of the next norm, [m]
    scaled: Tensor | None = None  # y times this weight, [T, m]
    squares: Tensor | None = None  # partial sums of each token's squares, float32 [T, programs]


@triton.jit
def load_squares(inputs, token, token_mask, BLOCK_P: tl.constexpr):
    """Partial sums of each token's squares, `[BLOCK_T, BLOCK_P]`."""
    part = tl.arange(0, BLOCK_P)
    part_mask = token_mask[:, None] & (part < inputs.n_parts)[None, :]
    return tl.load(inputs.squares + token[:, None] * inputs.n_parts + part[None, :], part_mask, 0.0)


@triton.jit
def store_outputs(total, up, shift, added, scale, outputs, place, token, token_mask, mask):
    """Add bias, gate and residual to sums `[BLOCK_T, BLOCK_N]`, and store all outputs; None skips an operand."""
    if shift is not None:
        total += shift.to(tl.float32)[None, :]
    if up is not None:
        total = total * tl.sigmoid(total) * up
    if added is not None:
        total += added.to(tl.float32)
    y = total.to(outputs.y.dtype.element_ty)
    tl.store(outputs.y + place, y, mask)
    if scale is not None:
        exact = y.to(tl.float32)
        tl.store(outputs.scaled + place, (exact * scale.to(tl.float32)[None, :]).to(y.dtype), mask)
        square_sum = tl.sum(tl.where(mask, exact * exact, 0.0), 1)
        tl.store(outputs.squares + token * tl.num_programs(0) + tl.program_id(0), square_sum, token_mask)


@triton.jit
def linear_kernel(
    inputs,
    weight,
    outputs,
    n_tokens,
    n_out,
    n_in,
    GATED: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SPLITS: tl.constexpr,
    PRECISION: tl.constexpr,
    ORDERED: tl.constexpr,
    EARLY: tl.constexpr,
):
    let_next_start(EARLY, ORDERED)
    out = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    token = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    out_mask, token_mask = out < n_out, token < n_tokens
    weight_row = out.to(tl.int64)[:, None] * n_in
    row = token.to(tl.int64)
    first, last = 0, n_in
    if SPLITS > 1:
        # Each split multiplies whole blocks of inputs and writes a result of its own; `sum_kernel` adds them up.
        split_inputs = tl.cdiv(tl.cdiv(n_in, SPLITS), BLOCK_K) * BLOCK_K
        first = tl.program_id(2) * split_inputs
        last = tl.minimum(n_in, first + split_inputs)
        row += tl.program_id(2).to(tl.int64) * n_tokens
    if EARLY:
        if tl.program_id(1) == 0:
            move_weights_to_l2(weight, out, n_out, first, last, n_in, GATED, BLOCK_K)
        wait_for_input(EARLY, ORDERED)
    place = row[:, None] * n_out + out[None, :]
    mask = token_mask[:, None] & out_mask[None, :]
    # Read before the loop, so that nothing after it waits for memory.
    if inputs.squares is not None:
        square = load_squares(inputs, token, token_mask, BLOCK_P)
        factor = tl.rsqrt(tl.sum(square, 1) / n_in + inputs.eps)
    added = tl.load(outputs.residual + place, mask, 0.0).to(tl.float32) if outputs.residual is not None else None
    total = tl.zeros([BLOCK_T, BLOCK_N], tl.float32)
    total_up = tl.zeros([BLOCK_T, BLOCK_N], tl.float32)
    for start in range(first, last, BLOCK_K):
        column = start + tl.arange(0, BLOCK_K)
        inside = column < n_in
        x = tl.load(inputs.x + token[:, None] * n_in + column[None, :], token_mask[:, None] & inside[None, :], 0.0)
        w_mask = out_mask[:, None] & inside[None, :]
        w = tl.load(weight + weight_row + column[None, :], w_mask, 0.0)
        total = tl.dot(x, tl.trans(w), total, input_precision=PRECISION)
        if GATED:
            up = tl.load(weight + weight_row + n_out.to(tl.int64) * n_in + column[None, :], w_mask, 0.0)
            total_up = tl.dot(x, tl.trans(up), total_up, input_precision=PRECISION)
    if inputs.squares is not None:
        total *= factor[:, None]
        total_up *= factor[:, None]
    shift = tl.load(outputs.bias + out, out_mask, 0.0) if outputs.bias is not None else None
    scale = tl.load(outputs.next_norm + out, out_mask, 0.0) if outputs.next_norm is not None else None
    up_total = total_up if GATED else None
    store_outputs(total, up_total, shift, added, scale, outputs, place, token, token_mask, mask)


@triton.jit
def sum_kernel(
    splits, outputs, n_out, SPLITS: tl.constexpr, BLOCK_N: tl.constexpr, ORDERED: tl.constexpr, EARLY: tl.constexpr
):
    # Splits are added in a fixed order, so that results do not depend on which program finished first.
    let_next_start(EARLY, ORDERED)
    out = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    n_tokens = tl.num_programs(1)
    token = tl.program_id(1) + tl.arange(0, 1)
    out_mask, token_mask = out < n_out, token < n_tokens
    mask = token_mask[:, None] & out_mask[None, :]
    place = token.to(tl.int64)[:, None] * n_out + out[None, :]
    shift = tl.load(outputs.bias + out, out_mask, 0.0) if outputs.bias is not None else None
    scale = tl.load(outputs.next_norm + out, out_mask, 0.0) if outputs.next_norm is not None else None
    wait_for_input(EARLY, ORDERED)
    total = tl.zeros([1, BLOCK_N], tl.float32)
    for split in tl.static_range(SPLITS):
        total += tl.load(splits + split * n_tokens.to(tl.int64) * n_out + place, mask, 0.0)
    added = tl.load(outputs.residual + place, mask, 0.0) if outputs.residual is not None else None
    store_outputs(total, None, shift, added, scale, outputs, place, token, token_mask, mask)


@triton.jit
def vector_kernel(
    inputs,
    weight,
    outputs,
    n_out,
    n_in,
    GATED: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    ORDERED: tl.constexpr,
    EARLY: tl.constexpr,
):
    # One token: products are summed as the weights arrive, since matrix units would not help.
    let_next_start(EARLY, ORDERED)
    out = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    out_mask = out < n_out
    place = weight + out.to(tl.int64)[:, None] * n_in
    place_up = place + n_out.to(tl.int64) * n_in
    total = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    total_up = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    squares = tl.zeros([BLOCK_K], tl.float32)
    # The first block's weights are requested before the input arrives, each next block's before this one is summed.
    column = tl.arange(0, BLOCK_K)
    mask = out_mask[:, None] & (column < n_in)[None, :]
    w = tl.load(place + column[None, :], mask, 0.0)
    if GATED:
        up = tl.load(place_up + column[None, :], mask, 0.0)
    if EARLY:
        move_weights_to_l2(weight, out, n_out, BLOCK_K, n_in, n_in, GATED, BLOCK_K)
        wait_for_input(EARLY, ORDERED)
    for start in range(0, n_in, BLOCK_K):
        column = start + tl.arange(0, BLOCK_K)
        inside = column < n_in
        ahead = column + BLOCK_K
        mask = out_mask[:, None] & (ahead < n_in)[None, :]
        next_w = tl.load(place + ahead[None, :], mask, 0.0)
        x = tl.load(inputs.x + column, inside, 0.0).to(tl.float32)
        if inputs.norm is not None:
            squares += x * x
            x *= tl.load(inputs.norm + column, inside, 0.0).to(tl.float32)
        total += w.to(tl.float32) * x[None, :]
        w = next_w
        if GATED:
            next_up = tl.load(place_up + ahead[None, :], mask, 0.0)
            total_up += up.to(tl.float32) * x[None, :]
            up = next_up
    y, y_up = tl.sum(total, 1), tl.sum(total_up, 1)
    if inputs.norm is not None:
        factor = tl.rsqrt(tl.sum(squares, 0) / n_in + inputs.eps)
        y *= factor
        y_up *= factor
    if outputs.bias is not None:
        y += tl.load(outputs.bias + out, out_mask, 0.0).to(tl.float32)
    if GATED:
        y = y * tl.sigmoid(y) * y_up
    if outputs.residual is not None:
        y += tl.load(outputs.residual + out, out_mask, 0.0).to(tl.float32)
    tl.store(outputs.y + out, y.to(outputs.y.dtype.element_ty), out_mask)
