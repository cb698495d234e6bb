"""The inputs of a tree's depth and the first layer's attention to what came before, in one launch."""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from padrec.decoding.device.kernels.early_launch import let_next_start, wait_for_input
from padrec.decoding.layers.kernels.attention import HeadNorms, absorb, is_finite, move_past_to_l2


class Attention(NamedTuple):
    """See `FirstAttention`."""

    norms: HeadNorms | None
    cosines: Tensor
    sines: Tensor
    key_cache: Tensor
    value_cache: Tensor  # tuples in kernels have `values` of their own
    row_stride: int
    head_stride: int
    lengths: Tensor
    places: Tensor
    place_stride: int
    scale: float


@triton.jit
def _sources(index, row, inputs, level, n_inputs):
    """Of nodes: addresses of the parent's mapped feature and of the token's terms, gate, slot, and the parent."""
    mask = index < inputs.n_tokens
    place = row * inputs.n_tokens + index
    parent = row * inputs.n_before + tl.load(level.parents + place, mask, 0)
    before = inputs.mapped + parent * inputs.mapped_stride
    of_token = inputs.table + tl.load(inputs.tokens + place, mask, 0) * inputs.table_stride
    gate, slot = before, before
    if inputs.step is not None:
        gate = tl.sigmoid(tl.load(before + n_inputs).to(tl.float32) + tl.load(of_token + n_inputs).to(tl.float32))
    if inputs.slots is not None:
        slot = inputs.slot_terms + tl.load(inputs.slots + place, mask, 0) * n_inputs
    return before, of_token, gate, slot, parent


@triton.jit
def _fused(sources, unit, mask, inputs):
    """Inputs `unit` of nodes, rounded as where they are stored, in float32."""
    before, of_token, gate, slot, _ = sources
    total = tl.load(before[:, None] + unit, mask, 0.0).to(tl.float32)
    total += tl.load(of_token[:, None] + unit, mask, 0.0).to(tl.float32)
    if inputs.step is not None:
        total += gate[:, None] * tl.load(inputs.step + unit, mask, 0.0).to(tl.float32)
    if inputs.slots is not None:
        total += tl.load(slot[:, None] + unit, mask, 0.0).to(tl.float32)
    return total.to(inputs.table.dtype.element_ty).to(tl.float32)


@triton.jit
def _normed(low, high, weight, eps, half, SIZE: tl.constexpr):
    """Halves of heads after their norm."""
    factor = tl.rsqrt(tl.sum(low * low + high * high, 1) / SIZE + eps)[:, None]
    low = low * factor * tl.load(weight + half).to(tl.float32)
    return low, high * factor * tl.load(weight + half + SIZE // 2).to(tl.float32)


@triton.jit
def _rotated(low, high, attention, angle, SIZE: tl.constexpr):
    """Halves of heads, rotated by their position."""
    cosines, sines = attention.cosines + angle, attention.sines + angle
    turned = low * tl.load(cosines) - high * tl.load(sines)
    return turned, high * tl.load(cosines + SIZE // 2) + low * tl.load(sines + SIZE // 2)


@triton.jit
def _attend(
    row,
    head,
    inputs,
    level,
    attention,
    seen,
    n_units,
    n_inputs,
    n_nodes,
    N_KEYS: tl.constexpr,
    GROUP: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_S: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Store the nodes' keys and values of one head, and attend to what they see."""
    # The query heads of a node that share the key head are rows of one tile.
    query = tl.arange(0, BLOCK_Q)
    node, member = query // GROUP, query % GROUP
    real = (node < inputs.n_tokens)[:, None]
    sources = _sources(node, row, inputs, level, n_inputs)
    HALF: tl.constexpr = SIZE // 2
    half, unit = tl.arange(0, HALF)[None, :], tl.arange(0, SIZE)[None, :]
    past = tl.load(attention.lengths + row)
    angle = (past + tl.load(attention.places + row * attention.place_stride)) * SIZE + half
    place = n_units + (head * GROUP + member)[:, None] * SIZE + half
    q_low, q_high = _fused(sources, place, real, inputs), _fused(sources, place + HALF, real, inputs)
    place = n_units + (N_KEYS * GROUP + head) * SIZE + half
    k_low, k_high = _fused(sources, place, real, inputs), _fused(sources, place + HALF, real, inputs)
    own = _fused(sources, n_units + (N_KEYS * GROUP + N_KEYS + head) * SIZE + unit, real, inputs)
    if attention.norms is not None:
        q_low, q_high = _normed(q_low, q_high, attention.norms.query, attention.norms.eps, half, SIZE)
        k_low, k_high = _normed(k_low, k_high, attention.norms.key, attention.norms.eps, half, SIZE)
    q_low, q_high = _rotated(q_low, q_high, attention, angle, SIZE)
    k_low, k_high = _rotated(k_low, k_high, attention, angle, SIZE)
    # See `rotate_kernel`.
    broken = tl.min(is_finite(own).to(tl.int32), 1)[:, None] == 0
    dtype = attention.key_cache.dtype.element_ty
    q_low, q_high, own = q_low.to(dtype), q_high.to(dtype), tl.where(is_finite(own), own, 0.0).to(dtype)
    k_low = tl.where(broken, float("nan"), k_low).to(dtype)
    k_high = tl.where(broken, float("nan"), k_high).to(dtype)
    base = row * attention.row_stride + head * attention.head_stride
    place = base + (past + level.first + node)[:, None] * SIZE
    stored = real & (member == 0)[:, None]
    tl.store(attention.key_cache + place + half, k_low, stored)
    tl.store(attention.key_cache + place + half + HALF, k_high, stored)
    tl.store(attention.value_cache + place + unit, own, stored)
    # Of its own depth a node sees itself alone.
    scale = attention.scale * 1.4426950408889634  # exp(x) is 2 to the power of x / log(2)
    own_score = tl.sum(q_low.to(tl.float32) * k_low.to(tl.float32), 1)
    own_score = (own_score + tl.sum(q_high.to(tl.float32) * k_high.to(tl.float32), 1)) * scale
    top = tl.maximum(own_score, -1e30)
    weight_sum = tl.exp2(own_score - top)
    total = weight_sum[:, None] * own.to(tl.float32)
    end = past + level.first
    for block in range(0, end, BLOCK_S):
        column = block + tl.arange(0, BLOCK_S)
        filled, after = (column < end)[:, None], (column - past)[None, :]
        sees = after < 0
        if level.above is not None:
            flags = level.above + sources[4][:, None] * n_nodes + after
            sees = sees | (tl.load(flags, (after >= 0) & (after < level.first), 0) != 0)
        address = base + column[:, None] * SIZE
        block_low = tl.load(attention.key_cache + address + half, filled, 0.0)
        block_high = tl.load(attention.key_cache + address + half + HALF, filled, 0.0)
        v = tl.load(attention.value_cache + address + unit, filled, 0.0)
        score = tl.dot(q_low, tl.trans(block_low), input_precision=PRECISION)
        score = tl.dot(q_high, tl.trans(block_high), score, input_precision=PRECISION) * scale
        score = tl.where(sees, score, float("-inf"))
        top, weight_sum, total = absorb(score, v, top, weight_sum, total, PRECISION)
    place = ((row * inputs.n_tokens + node) * (N_KEYS * GROUP) + head * GROUP + member)[:, None] * SIZE + unit
    tl.store(seen + place, (total / weight_sum[:, None]).to(seen.dtype.element_ty), real)


@triton.jit
def _store_inputs(
    row,
    part,
    inputs,
    level,
    hidden,
    visible,
    n_units,
    n_inputs,
    n_nodes,
    BLOCK_T: tl.constexpr,
    BLOCK_U: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Store a part of the layer's inputs; the first part also what the nodes see."""
    node = tl.arange(0, BLOCK_T)
    real = (node < inputs.n_tokens)[:, None]
    sources = _sources(node, row, inputs, level, n_inputs)
    unit = part * BLOCK_U + tl.arange(0, BLOCK_U)[None, :]
    mask = real & (unit < n_units)
    place = (row * inputs.n_tokens + node)[:, None]
    tl.store(hidden + place * n_units + unit, _fused(sources, unit, mask, inputs).to(hidden.dtype.element_ty), mask)
    other = tl.arange(0, BLOCK_N)[None, :]
    mask = real & (other < n_nodes) & (part == 0)
    sees = (other == level.first + node[:, None]).to(tl.uint8)
    if level.above is not None:
        sees |= tl.load(level.above + sources[4][:, None] * n_nodes + other, mask, 0)
    tl.store(visible + place * n_nodes + other, sees, mask)


@triton.jit
def first_attention_kernel(
    inputs,
    level,
    attention,
    hidden,
    visible,
    seen,
    n_units,
    n_inputs,
    n_nodes,
    N_KEYS: tl.constexpr,
    GROUP: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_U: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_S: tl.constexpr,
    PRECISION: tl.constexpr,
    EARLY: tl.constexpr,
):
    """Programs of a row: one for each key head, then those that store the layer's inputs."""
    let_next_start(EARLY)
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    if part < N_KEYS:
        head = part.to(tl.int64)
        if EARLY:
            base = row * attention.row_stride + head * attention.head_stride
            past = tl.load(attention.lengths + row)
            move_past_to_l2(attention.key_cache + base, attention.value_cache + base, past, SIZE, BLOCK_S)
        wait_for_input(EARLY)
        _attend(
            row,
            head,
            inputs,
            level,
            attention,
            seen,
            n_units,
            n_inputs,
            n_nodes,
            N_KEYS,
            GROUP,
            SIZE,
            BLOCK_Q,
            BLOCK_S,
            PRECISION,
        )
    else:
        wait_for_input(EARLY)
        _store_inputs(
            row, part - N_KEYS, inputs, level, hidden, visible, n_units, n_inputs, n_nodes, BLOCK_T, BLOCK_U, BLOCK_N
        )
