"""The GPU kernels behind `TritonOperations`, which says what they compute."""

import triton
import triton.language as tl


@triton.jit
def norm_kernel(x, weight, y, n, eps, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    unit = tl.arange(0, BLOCK)
    inside = unit < n
    exact = tl.load(x + token * n + unit, inside, 0.0).to(tl.float32)
    factor = tl.rsqrt(tl.sum(exact * exact, 0) / n + eps)
    scaled = (exact * factor).to(y.dtype.element_ty) * tl.load(weight + unit, inside, 0.0)
    tl.store(y + token * n + unit, scaled, inside)


@triton.jit
def linear_kernel(
    x,
    weight,
    bias,
    residual,
    y,
    n_tokens,
    n_out,
    n_in,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    GATED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):
    out = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    token = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    out_mask, token_mask = out < n_out, token < n_tokens
    weight_row = out.to(tl.int64)[:, None] * n_in
    total = tl.zeros([BLOCK_T, BLOCK_N], tl.float32)
    total_up = tl.zeros([BLOCK_T, BLOCK_N], tl.float32)
    for start in range(0, n_in, BLOCK_K):
        column = start + tl.arange(0, BLOCK_K)
        inside = column < n_in
        part = tl.load(x + token[:, None] * n_in + column[None, :], token_mask[:, None] & inside[None, :], 0.0)
        w_mask = out_mask[:, None] & inside[None, :]
        w = tl.load(weight + weight_row + column[None, :], w_mask, 0.0)
        total = tl.dot(part, tl.trans(w), total, input_precision=PRECISION)
        if GATED:
            up = tl.load(weight + weight_row + n_out.to(tl.int64) * n_in + column[None, :], w_mask, 0.0)
            total_up = tl.dot(part, tl.trans(up), total_up, input_precision=PRECISION)
    if HAS_BIAS:
        total += tl.load(bias + out, out_mask, 0.0).to(tl.float32)[None, :]
    if GATED:
        total = total * tl.sigmoid(total) * total_up
    place = token.to(tl.int64)[:, None] * n_out + out[None, :]
    mask = token_mask[:, None] & out_mask[None, :]
    if HAS_RESIDUAL:
        total += tl.load(residual + place, mask, 0.0).to(tl.float32)
    tl.store(y + place, total.to(y.dtype.element_ty), mask)


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
):
    # One token: its products with the weights are summed as they are read, which no matrix unit would speed up.
    out = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    out_mask = out < n_out
    weight_row = out.to(tl.int64)[:, None] * n_in
    total = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    total_up = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    squares = tl.zeros([BLOCK_K], tl.float32)
    for start in range(0, n_in, BLOCK_K):
        column = start + tl.arange(0, BLOCK_K)
        inside = column < n_in
        w_mask = out_mask[:, None] & inside[None, :]
        w = tl.load(weight + weight_row + column[None, :], w_mask, 0.0)
        part = tl.load(x + column, inside, 0.0).to(tl.float32)
        if HAS_NORM:
            squares += part * part
            part *= tl.load(norm + column, inside, 0.0).to(tl.float32)
        total += w.to(tl.float32) * part[None, :]
        if GATED:
            up = tl.load(weight + weight_row + n_out.to(tl.int64) * n_in + column[None, :], w_mask, 0.0)
            total_up += up.to(tl.float32) * part[None, :]
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


@triton.jit
def rotate_kernel(
    qkv,
    query_norm,
    key_norm,
    cosines,
    sines,
    positions,
    lengths,
    queries,
    keys,
    values,
    width,
    first,
    row_stride,
    head_stride,
    eps,
    HAS_NORM: tl.constexpr,
    N_QUERIES: tl.constexpr,
    N_KEYS: tl.constexpr,
    SIZE: tl.constexpr,
):
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row, index = token // width, token % width
    unit = tl.arange(0, SIZE)
    # The rotation pairs each unit with the one half a head away.
    partner = (unit + SIZE // 2) % SIZE
    source = qkv + (token * (N_QUERIES + 2 * N_KEYS) + head) * SIZE
    column = tl.load(lengths + row) + first + index
    if head >= N_QUERIES + N_KEYS:
        place = row * row_stride + (head - N_QUERIES - N_KEYS) * head_stride + column * SIZE
        tl.store(values + place + unit, tl.load(source + unit))
    else:
        own, other = tl.load(source + unit).to(tl.float32), tl.load(source + partner).to(tl.float32)
        if HAS_NORM:
            factor = tl.rsqrt(tl.sum(own * own, 0) / SIZE + eps)
            norm = query_norm if head < N_QUERIES else key_norm
            own = own * factor * tl.load(norm + unit).to(tl.float32)
            other = other * factor * tl.load(norm + partner).to(tl.float32)
        position = tl.load(positions + token)
        cosine = tl.load(cosines + position * SIZE + unit)
        sine = tl.load(sines + position * SIZE + unit)
        turned = own * cosine + tl.where(unit < SIZE // 2, -other, other) * sine
        if head < N_QUERIES:
            tl.store(queries + (token * N_QUERIES + head) * SIZE + unit, turned.to(queries.dtype.element_ty))
        else:
            place = row * row_stride + (head - N_QUERIES) * head_stride + column * SIZE
            tl.store(keys + place + unit, turned.to(keys.dtype.element_ty))


@triton.jit
def _absorb(score, v, top, weight_sum, total, PRECISION: tl.constexpr):
    """One more block of columns in a softmax whose maximum is not known yet."""
    # Nothing is visible to what only fills a tile up: its numbers are never stored, but must not be infinite.
    new_top = tl.maximum(tl.maximum(top, tl.max(score, 1)), -1e30)
    shrink = tl.exp(top - new_top)
    weight = tl.exp(score - new_top[:, None])
    total = tl.dot(weight.to(v.dtype), v, total * shrink[:, None], input_precision=PRECISION)
    return new_top, weight_sum * shrink + tl.sum(weight, 1), total


@triton.jit
def attention_kernel(
    queries,
    keys,
    values,
    lengths,
    ancestors,
    seen,
    width,
    first,
    ancestor_row_stride,
    ancestor_token_stride,
    row_stride,
    head_stride,
    scale,
    CHAIN: tl.constexpr,
    N_KEYS: tl.constexpr,
    GROUP: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_S: tl.constexpr,
    PRECISION: tl.constexpr,
):
    row, head = (tl.program_id(0) // N_KEYS).to(tl.int64), tl.program_id(0) % N_KEYS
    query = tl.program_id(1) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    token, member = query // GROUP, query % GROUP
    real = token < width
    unit = tl.arange(0, SIZE)
    place = ((row * width + token) * (N_KEYS * GROUP) + head * GROUP + member)[:, None] * SIZE + unit[None, :]
    q = tl.load(queries + place, real[:, None], 0.0)
    past = tl.load(lengths + row)
    end = past + first + width
    base = row * row_stride + head * head_stride
    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    weight_sum = tl.zeros([BLOCK_Q], tl.float32)
    total = tl.zeros([BLOCK_Q, SIZE], tl.float32)
    # Blocks of columns that all tokens see need no mask.
    whole = (past // BLOCK_S) * BLOCK_S
    for start in range(0, whole, BLOCK_S):
        address = base + (start + tl.arange(0, BLOCK_S))[:, None] * SIZE + unit[None, :]
        k = tl.load(keys + address)
        v = tl.load(values + address)
        score = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        top, weight_sum, total = _absorb(score, v, top, weight_sum, total, PRECISION)
    for start in range(whole, end, BLOCK_S):
        column = start + tl.arange(0, BLOCK_S)
        filled = column < end
        address = base + column[:, None] * SIZE + unit[None, :]
        k = tl.load(keys + address, filled[:, None], 0.0)
        v = tl.load(values + address, filled[:, None], 0.0)
        score = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        behind = column - past
        if CHAIN:
            visible = behind[None, :] <= token[:, None]
        else:
            in_tree = (behind >= 0) & filled
            flags = ancestors + row * ancestor_row_stride + token[:, None] * ancestor_token_stride + behind[None, :]
            is_ancestor = tl.load(flags, real[:, None] & in_tree[None, :], 0)
            visible = (behind < 0)[None, :] | (is_ancestor != 0)
        score = tl.where(visible & filled[None, :], score, float("-inf"))
        top, weight_sum, total = _absorb(score, v, top, weight_sum, total, PRECISION)
    total = total / weight_sum[:, None]
    tl.store(seen + place, total.to(seen.dtype.element_ty), real[:, None])


@triton.jit
def keep_kernel(
    keys,
    values,
    lengths,
    path,
    batch,
    n_heads,
    depth,
    head_stride,
    SIZE: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    head = tl.program_id(0).to(tl.int64)
    row = (head // n_heads) % batch
    place = tl.arange(0, BLOCK_D)
    inside = place < depth
    past = tl.load(lengths + row)
    unit = tl.arange(0, SIZE)
    source = past + tl.load(path + row * depth + place, inside, 0)
    mask = inside[:, None] & (unit < SIZE)[None, :]
    base = head * head_stride
    # One program holds a whole head's columns before it writes any, so that moving in place is safe.
    if tl.program_id(1) == 0:
        moved = tl.load(keys + base + source[:, None] * SIZE + unit[None, :], mask)
        tl.debug_barrier()
        tl.store(keys + base + (past + place)[:, None] * SIZE + unit[None, :], moved, mask)
    else:
        moved = tl.load(values + base + source[:, None] * SIZE + unit[None, :], mask)
        tl.debug_barrier()
        tl.store(values + base + (past + place)[:, None] * SIZE + unit[None, :], moved, mask)
