"""Attention over the KV cache, and the kernels that write and move its columns."""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from padrec.decoding.device.kernels.early_launch import let_next_start, move_to_l2, wait_for_input


class Rows(NamedTuple):
    """The rows of a pass; see `Placement` and, if packed, `VariableLengthLayout`."""

    lengths: Tensor  # [B]
    width: int
    first: int
    starts: Tensor | None  # [B + 1]
    places: Tensor | None  # [N]
    chain: Tensor | None  # [B]
    branches: int  # tokens of each row's tree after its chain


class Parts(NamedTuple):
    """What programs that share columns found, for each split and row: a query head of a token."""

    totals: Tensor  # float32 [splits, rows, n]
    tops: Tensor  # float32 [splits, rows], highest scores in powers of two
    sums: Tensor  # float32 [splits, rows]
    count: int  # of the rows


class HeadNorms(NamedTuple):
    """Norms of each query and each key."""

    query: Tensor  # [n]
    key: Tensor  # [n]
    eps: float


@triton.jit
def is_finite(x):
    return tl.abs(x) < float("inf")


@triton.jit
def rotate_kernel(
    qkv,
    norms,
    cosines,
    sines,
    rows,
    depths,
    depth_row_stride,
    depth_stride,
    batch,
    queries,
    keys,
    values,
    row_stride,
    head_stride,
    N_QUERIES: tl.constexpr,
    N_KEYS: tl.constexpr,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    EARLY: tl.constexpr,
):
    let_next_start(EARLY)
    token = tl.program_id(0).to(tl.int64)
    head = (tl.program_id(1) * HEADS + tl.arange(0, HEADS))[:, None]
    # Rotation pairs each unit of the first half of a head with the one half a head away.
    HALF: tl.constexpr = SIZE // 2
    unit = tl.arange(0, HALF)[None, :]
    is_query, is_key = head < N_QUERIES, (head >= N_QUERIES) & (head < N_QUERIES + N_KEYS)
    is_value = (head >= N_QUERIES + N_KEYS) & (head < N_QUERIES + 2 * N_KEYS)
    wait_for_input(EARLY)
    place = token
    if rows.starts is not None:
        # Packed tokens after the last row belong to none.
        if token >= tl.load(rows.starts + batch):
            return
        place = tl.load(rows.places + token)
    row, index = place // rows.width, place % rows.width
    source = qkv + (token * (N_QUERIES + 2 * N_KEYS) + head) * SIZE + unit
    past = tl.load(rows.lengths + row)
    position = past + tl.load(depths + row * depth_row_stride + index * depth_stride)
    exists = is_query | is_key | is_value
    low = tl.load(source, exists, 0.0).to(tl.float32)
    high = tl.load(source + HALF, exists, 0.0).to(tl.float32)
    # A token whose value is not finite must not reach those that do not see it, but 0 * NaN is NaN. So where a value is
    # not finite 0 is stored, and NaN in the key, which the mask hides.
    value_low = tl.load(source + N_KEYS * SIZE, is_key, 0.0).to(tl.float32)
    value_high = tl.load(source + N_KEYS * SIZE + HALF, is_key, 0.0).to(tl.float32)
    own_low, own_high = low, high
    if norms is not None:
        factor = tl.rsqrt(tl.sum(low * low + high * high, 1) / SIZE + norms.eps)[:, None]
        low_norm = tl.where(is_query, tl.load(norms.query + unit), tl.load(norms.key + unit))
        high_norm = tl.where(is_query, tl.load(norms.query + unit + HALF), tl.load(norms.key + unit + HALF))
        low, high = low * factor * low_norm.to(tl.float32), high * factor * high_norm.to(tl.float32)
    angle = position * SIZE + unit
    turned_low = low * tl.load(cosines + angle) - high * tl.load(sines + angle)
    turned_high = high * tl.load(cosines + angle + HALF) + low * tl.load(sines + angle + HALF)
    query = queries + (token * N_QUERIES + head) * SIZE + unit
    tl.store(query, turned_low.to(queries.dtype.element_ty), is_query)
    tl.store(query + HALF, turned_high.to(queries.dtype.element_ty), is_query)
    key = row * row_stride + (head - N_QUERIES) * head_stride + (past + rows.first + index) * SIZE + unit
    turned_low = tl.where(is_finite(value_low), turned_low, float("nan"))
    turned_high = tl.where(is_finite(value_high), turned_high, float("nan"))
    tl.store(keys + key, turned_low.to(keys.dtype.element_ty), is_key)
    tl.store(keys + key + HALF, turned_high.to(keys.dtype.element_ty), is_key)
    value = values + key - N_KEYS * head_stride
    tl.store(value, tl.where(is_finite(own_low), own_low, 0.0).to(values.dtype.element_ty), is_value)
    tl.store(value + HALF, tl.where(is_finite(own_high), own_high, 0.0).to(values.dtype.element_ty), is_value)


@triton.jit
def absorb(score, v, top, weight_sum, total, PRECISION: tl.constexpr):
    """Add a block of columns to an online softmax of scores in powers of two."""
    # Padding of a tile sees nothing: its results are never stored, but must stay finite.
    new_top = tl.maximum(tl.maximum(top, tl.max(score, 1)), -1e30)
    shrink = tl.exp2(top - new_top)
    weight = tl.exp2(score - new_top[:, None])
    total = tl.dot(weight.to(v.dtype), v, total * shrink[:, None], input_precision=PRECISION)
    return new_top, weight_sum * shrink + tl.sum(weight, 1), total


@triton.jit
def _attend_to_all(q, keys, values, scale, top, weight_sum, total, PRECISION: tl.constexpr):
    """Attend to a block of columns that all tokens see."""
    k, v = tl.load(keys), tl.load(values)
    score = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
    return absorb(score, v, top, weight_sum, total, PRECISION)


@triton.jit
def move_past_to_l2(keys, values, past, SIZE: tl.constexpr, BLOCK_S: tl.constexpr):
    # The length may be about to change, but either value stays within the cache.
    LINE: tl.constexpr = 1024 // keys.dtype.element_ty.primitive_bitwidth
    for start in range(0, past * SIZE, BLOCK_S * LINE):
        line = tl.minimum(start + LINE * tl.arange(0, BLOCK_S), past * SIZE - 1)
        move_to_l2(keys + line)
        move_to_l2(values + line)


@triton.jit
def attention_kernel(
    queries,
    keys,
    values,
    rows,
    ancestors,
    ancestor_row_stride,
    ancestor_token_stride,
    seen,
    parts,
    row_stride,
    head_stride,
    scale,
    N_KEYS: tl.constexpr,
    GROUP: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_S: tl.constexpr,
    APART: tl.constexpr,
    PRECISION: tl.constexpr,
    EARLY: tl.constexpr,
):
    let_next_start(EARLY)
    row, head = (tl.program_id(0) // N_KEYS).to(tl.int64), tl.program_id(0) % N_KEYS
    # In a chain the last queries see the most columns: begin with them.
    tile = tl.num_programs(1) - 1 - tl.program_id(1) if APART else tl.program_id(1)
    query = tile * BLOCK_Q + tl.arange(0, BLOCK_Q)
    token, member = query // GROUP, query % GROUP
    unit = tl.arange(0, SIZE)
    base = row * row_stride + head * head_stride
    if EARLY:
        # Prefetched only, and read after the wait: earlier kernels have started, but may not have written yet, such as
        # `keep_kernel`, which moves columns of the past.
        if not APART and parts is None:
            move_past_to_l2(keys + base, values + base, tl.load(rows.lengths + row), SIZE, BLOCK_S)
        wait_for_input(EARLY)
    # The length first: all addresses that follow depend on it.
    past = tl.load(rows.lengths + row).to(tl.int32)
    start, count = row * rows.width, rows.width
    if rows.starts is not None:
        start = tl.load(rows.starts + row)
        count = (tl.load(rows.starts + row + 1) - start).to(tl.int32)
    real = token < count
    found = (start + token) * (N_KEYS * GROUP) + head * GROUP + member
    place = found[:, None] * SIZE + unit[None, :]
    q = tl.load(queries + place, real[:, None], 0.0)
    scale *= 1.4426950408889634  # exp(x) is 2 to the power of x / log(2)
    end = past + rows.first + count
    first_token, last_token = tile * BLOCK_Q // GROUP, (tile * BLOCK_Q + BLOCK_Q - 1) // GROUP
    # Columns after the past that a token sees as part of a chain; no token of the tile sees fewer than `shared`.
    in_chain, shared, chain = token + 1, first_token + 1, 0
    if ancestors is None:
        end = tl.minimum(end, past + last_token + 1)
    else:
        if rows.chain is not None:
            chain = tl.load(rows.chain + row).to(tl.int32)
            end = tl.minimum(end, past + tl.where(last_token < chain, last_token + 1, chain + rows.branches))
        in_chain, shared = tl.minimum(in_chain, chain), tl.minimum(shared, chain)
    if rows.starts is not None:
        end = tl.where(first_token < count, end, 0)
    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    weight_sum = tl.zeros([BLOCK_Q], tl.float32)
    total = tl.zeros([BLOCK_Q, SIZE], tl.float32)
    within = tl.arange(0, BLOCK_S)
    first_column, last_column = 0, end
    if parts is not None:
        each = tl.cdiv(tl.cdiv(end, tl.num_programs(2)), BLOCK_S) * BLOCK_S
        first_column = tl.program_id(2) * each
        last_column = tl.minimum(end, first_column + each)
    unmasked = first_column
    if APART:
        unmasked = tl.minimum(tl.minimum(past + shared, end) // BLOCK_S * BLOCK_S, last_column)
        for block in range(first_column, unmasked, BLOCK_S):
            address = base + (block + within)[:, None] * SIZE + unit[None, :]
            top, weight_sum, total = _attend_to_all(
                q, keys + address, values + address, scale, top, weight_sum, total, PRECISION
            )
    # All loads of a block are issued before any of them is used.
    for block in range(tl.maximum(first_column, unmasked), last_column, BLOCK_S):
        column = block + within
        filled, after = column < end, column - past
        visible = after[None, :] < in_chain[:, None]
        if ancestors is not None:
            branch, sight = token - chain, after - chain
            in_tree = (sight >= 0) & filled
            known = real & (branch >= 0) if rows.chain is None else (branch >= 0) & (branch < rows.branches)
            flags = ancestors + row * ancestor_row_stride + branch[:, None] * ancestor_token_stride + sight[None, :]
            visible |= tl.load(flags, known[:, None] & in_tree[None, :], 0) != 0
        address = base + column[:, None] * SIZE + unit[None, :]
        k = tl.load(keys + address, filled[:, None], 0.0)
        v = tl.load(values + address, filled[:, None], 0.0)
        score = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        score = tl.where(visible & filled[None, :], score, float("-inf"))
        top, weight_sum, total = absorb(score, v, top, weight_sum, total, PRECISION)
    if parts is not None:
        part = tl.program_id(2) * parts.count + found
        tl.store(parts.totals + part[:, None] * SIZE + unit[None, :], total, real[:, None])
        tl.store(parts.tops + part, top, real)
        tl.store(parts.sums + part, weight_sum, real)
    else:
        total = total / weight_sum[:, None]
        tl.store(seen + place, total.to(seen.dtype.element_ty), real[:, None])


@triton.jit
def join_kernel(parts, seen, SPLITS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    """Join what the splits of attention found; a split without columns has a highest score of minus infinity."""
    let_next_start(EARLY)
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    part = tl.arange(0, SPLITS)[:, None] * parts.count + row[None, :]
    unit = tl.arange(0, SIZE)
    exists = row < parts.count
    wait_for_input(EARLY)
    top = tl.load(parts.tops + part, exists[None, :], 0.0)
    weight = tl.exp2(top - tl.max(top, 0)[None, :])
    weight_sum = tl.sum(weight * tl.load(parts.sums + part, exists[None, :], 1.0), 0)
    total = tl.load(parts.totals + part[:, :, None] * SIZE + unit[None, None, :], exists[None, :, None], 0.0)
    total = tl.sum(total * weight[:, :, None], 0) / weight_sum[:, None]
    tl.store(seen + row[:, None] * SIZE + unit[None, :], total.to(seen.dtype.element_ty), exists[:, None])


@triton.jit
def keep_kernel(
    keys, values, lengths, path, n_heads, depth, stride, SIZE: tl.constexpr, BLOCK_D: tl.constexpr, EARLY: tl.constexpr
):
    let_next_start(EARLY)
    row = (tl.program_id(1) // n_heads).to(tl.int64)
    base = (tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)) * stride
    place = tl.arange(0, BLOCK_D)
    inside = place < depth
    wait_for_input(EARLY)
    past = tl.load(lengths + row)
    unit = tl.arange(0, SIZE)
    source = past + tl.load(path + row * depth + place, inside, 0)
    mask = inside[:, None]
    # A program reads all of a head's columns before it writes any, so moving in place is safe.
    if tl.program_id(2) == 0:
        moved = tl.load(keys + base + source[:, None] * SIZE + unit[None, :], mask)
        tl.debug_barrier()
        tl.store(keys + base + (past + place)[:, None] * SIZE + unit[None, :], moved, mask)
    else:
        moved = tl.load(values + base + source[:, None] * SIZE + unit[None, :], mask)
        tl.debug_barrier()
        tl.store(values + base + (past + place)[:, None] * SIZE + unit[None, :], moved, mask)
