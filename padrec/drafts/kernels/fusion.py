"""The input of a draft's decoder layer."""

import triton
import triton.language as tl

from padrec.decoding.device.kernels.early_launch import let_next_start, wait_for_input


@triton.jit
def fusion_kernel(
    tokens,
    read,
    parents,
    table,
    gate_weight,
    gate_offset,
    step_embedding,
    above,
    fused,
    seen,
    n_tokens,
    n_before,
    read_stride,
    n_units,
    n_above,
    n_rows,
    first,
    GATED: tl.constexpr,
    IN_TREE: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_R: tl.constexpr,
    EARLY: tl.constexpr,
):
    # One program for a token.
    let_next_start(EARLY)
    program = tl.program_id(0).to(tl.int64)
    row, index = program // n_tokens, program % n_tokens
    unit = tl.arange(0, BLOCK)
    inside = unit < n_units
    if GATED:
        weight = tl.load(gate_weight + unit, inside, 0.0).to(tl.float32)
        step = tl.load(step_embedding + unit, inside, 0.0).to(tl.float32)
    wait_for_input(EARLY)
    token = tl.load(tokens + program)
    before = index
    if parents is not None:
        before = tl.load(parents + program)
    total = tl.load(read + (row * n_before + before) * read_stride + unit, inside, 0.0).to(tl.float32)
    total += tl.load(table + token * n_units + unit, inside, 0.0).to(tl.float32)
    if GATED:
        score = tl.sum(total * weight, 0) + tl.load(gate_offset + token).to(tl.float32)
        total += tl.sigmoid(score) * step
    tl.store(fused + program * n_units + unit, total.to(fused.dtype.element_ty), inside)
    if IN_TREE:
        place = tl.arange(0, BLOCK_R)
        visible = (place == first + index).to(tl.uint8)
        if above is not None:
            visible |= tl.load(above + (row * n_above + before) * n_rows + place, place < n_rows, 0)
        tl.store(seen + program * n_rows + place, visible, place < n_rows)
