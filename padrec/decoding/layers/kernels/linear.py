"""Linear maps whose programs stream weights and inputs."""

import triton
import triton.language as tl

from padrec.decoding.device.kernels.early_launch import let_next_start, move_weights_to_l2, wait_for_input
from padrec.decoding.layers.kernels.norms import store_scaled


@triton.jit
def linear_kernel(
    x,
    squares,
    weight,
    bias,
    residual,
    next_norm,
    y,
    next_scaled,
    next_squares,
    n_tokens,
    n_out,
    n_in,
    n_parts,
    eps,
    NORMED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    SCALES: tl.constexpr,
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
    first, last = 0, n_in
    if SPLITS > 1:
        # Whole blocks of inputs, to one of as many results: `sum_kernel` adds them up.
        split_inputs = tl.cdiv(tl.cdiv(n_in, SPLITS), BLOCK_K) * BLOCK_K
        first = tl.program_id(2) * split_inputs
        last = tl.minimum(n_in, first + split_inputs)
        y += tl.program_id(2).to(tl.int64) * n_tokens * n_out
    if EARLY:
        if tl.program_id(1) == 0:
            move_weights_to_l2(weight, out, n_out, first, last, n_in, GATED, BLOCK_K)
        wait_for_input(EARLY, ORDERED)
    place = token.to(tl.int64)[:, None] * n_out + out[None, :]
    mask = token_mask[:, None] & out_mask[None, :]
    # What the result needs besides is read before the loop, so that nothing is waited for behind it.
    if NORMED:
        part = tl.arange(0, BLOCK_P)
        part_mask = token_mask[:, None] & (part < n_parts)[None, :]
        square = tl.load(squares + token[:, None] * n_parts + part[None, :], part_mask, 0.0)
        factor = tl.rsqrt(tl.sum(square, 1) / n_in + eps)
    if HAS_RESIDUAL:
        added = tl.load(residual + place, mask, 0.0).to(tl.float32)
    total = tl.zeros([BLOCK_T, BLOCK_N], tl.float32)
    total_up = tl.zeros([BLOCK_T, BLOCK_N], tl.float32)
    for start in range(first, last, BLOCK_K):
        column = start + tl.arange(0, BLOCK_K)
        inside = column < n_in
        part_x = tl.load(x + token[:, None] * n_in + column[None, :], token_mask[:, None] & inside[None, :], 0.0)
        w_mask = out_mask[:, None] & inside[None, :]
        w = tl.load(weight + weight_row + column[None, :], w_mask, 0.0)
        total = tl.dot(part_x, tl.trans(w), total, input_precision=PRECISION)
        if GATED:
            up = tl.load(weight + weight_row + n_out.to(tl.int64) * n_in + column[None, :], w_mask, 0.0)
            total_up = tl.dot(part_x, tl.trans(up), total_up, input_precision=PRECISION)
    if NORMED:
        total *= factor[:, None]
        total_up *= factor[:, None]
    if HAS_BIAS:
        total += tl.load(bias + out, out_mask, 0.0).to(tl.float32)[None, :]
    if GATED:
        total = total * tl.sigmoid(total) * total_up
    if HAS_RESIDUAL:
        total += added
    result = total.to(y.dtype.element_ty)
    tl.store(y + place, result, mask)
    if SCALES:
        scale = tl.load(next_norm + out, out_mask, 0.0)
        store_scaled(result, scale, next_scaled, next_squares, place, token, token_mask, mask)


@triton.jit
def sum_kernel(
    splits,
    bias,
    residual,
    next_norm,
    y,
    next_scaled,
    next_squares,
    n_tokens,
    n_out,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    SCALES: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    ORDERED: tl.constexpr,
    EARLY: tl.constexpr,
):
    # Always in the same order, so that a result does not depend on which program was the first.
    let_next_start(EARLY, ORDERED)
    out = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    token = tl.program_id(1) + tl.arange(0, 1)
    token_mask = token < n_tokens
    mask = token_mask[:, None] & (out < n_out)[None, :]
    place = token.to(tl.int64)[:, None] * n_out + out[None, :]
    if HAS_BIAS:
        shift = tl.load(bias + out, out < n_out, 0.0).to(tl.float32)
    if SCALES:
        scale = tl.load(next_norm + out, out < n_out, 0.0)
    wait_for_input(EARLY, ORDERED)
    total = tl.zeros([1, BLOCK_N], tl.float32)
    for split in tl.static_range(SPLITS):
        total += tl.load(splits + split * n_tokens.to(tl.int64) * n_out + place, mask, 0.0)
    if HAS_BIAS:
        total += shift[None, :]
    if HAS_RESIDUAL:
        total += tl.load(residual + place, mask, 0.0).to(tl.float32)
    result = total.to(y.dtype.element_ty)
    tl.store(y + place, result, mask)
    if SCALES:
        store_scaled(result, scale, next_scaled, next_squares, place, token, token_mask, mask)


@triton.jit
def vector_kernel(
    x,
    weight,
    bias,
    norm,
    residual,
    y,
    n_out,
    n_in,
    eps,
    HAS_BIAS: tl.constexpr,
    HAS_NORM: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    GATED: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    ORDERED: tl.constexpr,
    EARLY: tl.constexpr,
):
    # One token: its products with the weights are summed as they are read, which no matrix unit would speed up.
    let_next_start(EARLY, ORDERED)
    out = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    out_mask = out < n_out
    place = weight + out.to(tl.int64)[:, None] * n_in
    place_up = place + n_out.to(tl.int64) * n_in
    total = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    total_up = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    squares = tl.zeros([BLOCK_K], tl.float32)
    # The first block's weights are on their way before the input is there, each other's before the one ahead is summed.
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
        part = tl.load(x + column, inside, 0.0).to(tl.float32)
        if HAS_NORM:
            squares += part * part
            part *= tl.load(norm + column, inside, 0.0).to(tl.float32)
        total += w.to(tl.float32) * part[None, :]
        w = next_w
        if GATED:
            next_up = tl.load(place_up + ahead[None, :], mask, 0.0)
            total_up += up.to(tl.float32) * part[None, :]
            up = next_up
    result, result_up = tl.sum(total, 1), tl.sum(total_up, 1)
    if HAS_NORM:
        factor = tl.rsqrt(tl.sum(squares, 0) / n_in + eps)
        result *= factor
        result_up *= factor
    if HAS_BIAS:
        result += tl.load(bias + out, out_mask, 0.0).to(tl.float32)
    if GATED:
        result = result * tl.sigmoid(result) * result_up
    if HAS_RESIDUAL:
        result += tl.load(residual + out, out_mask, 0.0).to(tl.float32)
    tl.store(y + out, result.to(y.dtype.element_ty), out_mask)
