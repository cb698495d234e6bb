"""Attention over cached keys and values, and what writes and keeps them."""

import triton
import triton.language as tl

from padrec.decoding.device.kernels.early_launch import let_next_start, move_to_l2, wait_for_input


@triton.jit
def rotate_kernel(
    qkv,
    query_norm,
    key_norm,
    cosines,
    sines,
    depths,
    lengths,
    places,
    starts,
    queries,
    keys,
    values,
    batch,
    width,
    first,
    depth_row_stride,
    depth_stride,
    row_stride,
    head_stride,
    eps,
    HAS_NORM: tl.constexpr,
    PACKED: tl.constexpr,
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
    if PACKED:
        # What is packed behind the last row belongs to none.
        if token >= tl.load(starts + batch):
            return
        place = tl.load(places + token)
    row, index = place // width, place % width
    # The rotation pairs each unit with the one half a head away.
    partner = (unit + SIZE // 2) % SIZE
    source = qkv + (token * (N_QUERIES + 2 * N_KEYS) + head) * SIZE
    past = tl.load(lengths + row)
    position = past + tl.load(depths + row * depth_row_stride + index * depth_stride)
    read = tl.load(source + unit, turns | is_value, 0.0)
    own, other = read.to(tl.float32), tl.load(source + partner, turns, 0.0).to(tl.float32)
    if HAS_NORM:
        factor = tl.rsqrt(tl.sum(own * own, 1) / SIZE + eps)[:, None]
        own_norm = tl.where(is_query, tl.load(query_norm + unit), tl.load(key_norm + unit))
        other_norm = tl.where(is_query, tl.load(query_norm + partner), tl.load(key_norm + partner))
        own, other = own * factor * own_norm.to(tl.float32), other * factor * other_norm.to(tl.float32)
    cosine, sine = tl.load(cosines + position * SIZE + unit), tl.load(sines + position * SIZE + unit)
    turned = own * cosine + tl.where(unit < SIZE // 2, -other, other) * sine
    tl.store(queries + (token * N_QUERIES + head) * SIZE + unit, turned.to(queries.dtype.element_ty), is_query)
    key = row * row_stride + (head - N_QUERIES) * head_stride + (past + first + index) * SIZE
    tl.store(keys + key + unit, turned.to(keys.dtype.element_ty), is_key)
    tl.store(values + key - N_KEYS * head_stride + unit, read, is_value)


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
def _move_past_to_l2(keys, values, past, SIZE: tl.constexpr, BLOCK_S: tl.constexpr):
    # A length that is about to change is a length all the same: no address is outside.
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
    lengths,
    ancestors,
    starts,
    seen,
    width,
    first,
    ancestor_row_stride,
    ancestor_token_stride,
    row_stride,
    head_stride,
    scale,
    CHAIN: tl.constexpr,
    PACKED: tl.constexpr,
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
        # The past's keys and values are read behind the wait as well. Before it, all that is known of the kernels
        # before is that they have started: launched early, they need not wait for one another either. And the first
        # one behind `keep_kernel`, which moves columns of the past, may start without seeing all that it wrote.
        _move_past_to_l2(keys + base, values + base, tl.load(lengths + row), SIZE, BLOCK_S)
        wait_for_input(EARLY)
    # The length first, since every address behind it waits for it.
    past = tl.load(lengths + row).to(tl.int32)
    start, count = row * width, width
    if PACKED:
        start = tl.load(starts + row)
        count = (tl.load(starts + row + 1) - start).to(tl.int32)
    real = token < count
    place = ((start + token) * (N_KEYS * GROUP) + head * GROUP + member)[:, None] * SIZE + unit[None, :]
    q = tl.load(queries + place, real[:, None], 0.0)
    end = past + first + count
    if CHAIN:
        # No token sees what follows it, and behind the last one there is nothing to be seen.
        final = ((tl.program_id(1) + 1) * BLOCK_Q - 1) // GROUP
        end = tl.minimum(end, past + final + 1)
    if PACKED:
        end = tl.where(tl.program_id(1) * BLOCK_Q < count * GROUP, end, 0)
    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    weight_sum = tl.zeros([BLOCK_Q], tl.float32)
    total = tl.zeros([BLOCK_Q, SIZE], tl.float32)
    # Blocks that all tokens see are masked too: behind a loop of their own, the last block's keys and values would be
    # asked for only when all before are summed up. What a block needs is asked for before any of it is waited for.
    for block in range(0, end, BLOCK_S):
        column = block + tl.arange(0, BLOCK_S)
        filled, behind = column < end, column - past
        if CHAIN:
            visible = behind[None, :] <= token[:, None]
        else:
            in_tree = (behind >= 0) & filled
            flags = ancestors + row * ancestor_row_stride + token[:, None] * ancestor_token_stride + behind[None, :]
            is_ancestor = tl.load(flags, real[:, None] & in_tree[None, :], 0)
            visible = (behind < 0)[None, :] | (is_ancestor != 0)
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
    EARLY: tl.constexpr,
):
    let_next_start(EARLY)
    head = tl.program_id(0).to(tl.int64)
    row = (head // n_heads) % batch
    place = tl.arange(0, BLOCK_D)
    inside = place < depth
    wait_for_input(EARLY)
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
