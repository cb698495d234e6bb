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


class HeadNorms(NamedTuple):
    """Norms of each query and each key."""

    query: Tensor  # [n]
    key: Tensor  # [n]
    eps: float


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
    unit = tl.arange(0, SIZE)[None, :]
    is_query, is_key = head < N_QUERIES, (head >= N_QUERIES) & (head < N_QUERIES + N_KEYS)
    is_value = (head >= N_QUERIES + N_KEYS) & (head < N_QUERIES + 2 * N_KEYS)
    turns = is_query | is_key
    wait_for_input(EARLY)
    place = token
    if rows.starts is not None:
        # Packed tokens after the last row belong to none.
        if token >= tl.load(rows.starts + batch):
            return
        place = tl.load(rows.places + token)
    row, index = place // rows.width, place % rows.width
    # Rotation pairs each unit with the one half a head away.
    partner = (unit + SIZE // 2) % SIZE
    source = qkv + (token * (N_QUERIES + 2 * N_KEYS) + head) * SIZE
    past = tl.load(rows.lengths + row)
    position = past + tl.load(depths + row * depth_row_stride + index * depth_stride)
    read = tl.load(source + unit, turns, 0.0)
    # A token whose value is not finite must not reach those that do not see it, but 0 * NaN is NaN. So where a value is
    # not finite 0 is stored, and NaN in the key, which the mask hides.
    value = tl.load(source + tl.where(is_key, N_KEYS * SIZE, 0) + unit, is_key | is_value, 0.0)
    is_finite = tl.abs(value.to(tl.float32)) < float("inf")
    own, other = read.to(tl.float32), tl.load(source + partner, turns, 0.0).to(tl.float32)
    if norms is not None:
        factor = tl.rsqrt(tl.sum(own * own, 1) / SIZE + norms.eps)[:, None]
        own_norm = tl.where(is_query, tl.load(norms.query + unit), tl.load(norms.key + unit))
        other_norm = tl.where(is_query, tl.load(norms.query + partner), tl.load(norms.key + partner))
        own, other = own * factor * own_norm.to(tl.float32), other * factor * other_norm.to(tl.float32)
    cosine, sine = tl.load(cosines + position * SIZE + unit), tl.load(sines + position * SIZE + unit)
    turned = own * cosine + tl.where(unit < SIZE // 2, -other, other) * sine
    tl.store(queries + (token * N_QUERIES + head) * SIZE + unit, turned.to(queries.dtype.element_ty), is_query)
    key = row * row_stride + (head - N_QUERIES) * head_stride + (past + rows.first + index) * SIZE
    turned = tl.where(is_finite, turned, float("nan"))
    tl.store(keys + key + unit, turned.to(keys.dtype.element_ty), is_key)
    tl.store(values + key - N_KEYS * head_stride + unit, tl.where(is_finite, value, 0.0), is_value)


@triton.jit
def _absorb(score, v, top, weight_sum, total, PRECISION: tl.constexpr):
    """Add a block of columns to an online softmax."""
    # Padding of a tile sees nothing: its results are never stored, but must stay finite.
    new_top = tl.maximum(tl.maximum(top, tl.max(score, 1)), -1e30)
    shrink = tl.exp(top - new_top)
    weight = tl.exp(score - new_top[:, None])
    total = tl.dot(weight.to(v.dtype), v, total * shrink[:, None], input_precision=PRECISION)
    return new_top, weight_sum * shrink + tl.sum(weight, 1), total


@triton.jit
def _move_past_to_l2(keys, values, past, SIZE: tl.constexpr, BLOCK_S: tl.constexpr):
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
    row_stride,
    head_stride,
    scale,
    N_KEYS: tl.constexpr,
    GROUP: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_S: tl.constexpr,
    PRECISION: tl.constexpr,
    EARLY: tl.constexpr,
):
    let_next_start(EARLY)
    row, head = (tl.program_id(0) // N_KEYS).to(tl.int64), tl.program_id(0) % N_KEYS
    query = tl.program_id(1) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    token, member = query // GROUP, query % GROUP
    unit = tl.arange(0, SIZE)
    base = row * row_stride + head * head_stride
    if EARLY:
        # Prefetched only, and read after the wait: earlier kernels have started, but may not have written yet, such as
        # `keep_kernel`, which moves columns of the past.
        _move_past_to_l2(keys + base, values + base, tl.load(rows.lengths + row), SIZE, BLOCK_S)
        wait_for_input(EARLY)
    # The length first: all addresses that follow depend on it.
    past = tl.load(rows.lengths + row).to(tl.int32)
    start, count = row * rows.width, rows.width
    if rows.starts is not None:
        start = tl.load(rows.starts + row)
        count = (tl.load(rows.starts + row + 1) - start).to(tl.int32)
    real = token < count
    place = ((start + token) * (N_KEYS * GROUP) + head * GROUP + member)[:, None] * SIZE + unit[None, :]
    q = tl.load(queries + place, real[:, None], 0.0)
    end = past + rows.first + count
    if ancestors is None:
        # A chain: no token sees the columns after its own.
        final = ((tl.program_id(1) + 1) * BLOCK_Q - 1) // GROUP
        end = tl.minimum(end, past + final + 1)
    if rows.starts is not None:
        end = tl.where(tl.program_id(1) * BLOCK_Q < count * GROUP, end, 0)
    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    weight_sum = tl.zeros([BLOCK_Q], tl.float32)
    total = tl.zeros([BLOCK_Q, SIZE], tl.float32)
    # Blocks that all tokens see are masked too: with a loop of their own, the last block would be requested only after
    # all others are summed. All loads of a block are issued before any of them is used.
    for block in range(0, end, BLOCK_S):
        column = block + tl.arange(0, BLOCK_S)
        filled, after = column < end, column - past
        if ancestors is None:
            visible = after[None, :] <= token[:, None]
        else:
            in_tree = (after >= 0) & filled
            flags = ancestors + row * ancestor_row_stride + token[:, None] * ancestor_token_stride + after[None, :]
            is_ancestor = tl.load(flags, real[:, None] & in_tree[None, :], 0)
            visible = (after < 0)[None, :] | (is_ancestor != 0)
        address = base + column[:, None] * SIZE + unit[None, :]
        k = tl.load(keys + address, filled[:, None], 0.0)
        v = tl.load(values + address, filled[:, None], 0.0)
        score = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        score = tl.where(visible & filled[None, :], score, float("-inf"))
        top, weight_sum, total = _absorb(score, v, top, weight_sum, total, PRECISION)
    total = total / weight_sum[:, None]
    tl.store(seen + place, total.to(seen.dtype.element_ty), real[:, None])


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
