"""The inputs of a draft's decoder layer."""

import triton
import triton.language as tl

from padrec.decoding.device.kernels.early_launch import let_next_start, wait_for_input


@triton.jit
def fusion_kernel(
    tokens,
    mapped,
    table,
    gate,
    level,
    fused,
    visible,
    n_tokens,
    n_before,
    mapped_stride,
    n_units,
    n_nodes,
    BLOCK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    EARLY: tl.constexpr,
):
    # One program per token. gate is a Gate or None; level a TreeLevel, or None as visible is: Triton cannot compare a
    # tuple that holds None.
    let_next_start(EARLY)
    program = tl.program_id(0).to(tl.int64)
    row, index = program // n_tokens, program % n_tokens
    unit = tl.arange(0, BLOCK)
    inside = unit < n_units
    if gate is not None:
        weight = tl.load(gate.weight + unit, inside, 0.0).to(tl.float32)
        step = tl.load(gate.step_embedding + unit, inside, 0.0).to(tl.float32)
    wait_for_input(EARLY)
    token = tl.load(tokens + program)
    src = row * n_before + index
    if visible is not None:
        src = row * n_before + tl.load(level.parents + program)
    total = tl.load(mapped + src * mapped_stride + unit, inside, 0.0).to(tl.float32)
    total += tl.load(table + token * n_units + unit, inside, 0.0).to(tl.float32)
    if gate is not None:
        score = tl.sum(total * weight, 0) + tl.load(gate.offset + token).to(tl.float32)
        total += tl.sigmoid(score) * step
    tl.store(fused + program * n_units + unit, total.to(fused.dtype.element_ty), inside)
    if visible is not None:
        node = tl.arange(0, BLOCK_N)
        sees = (node == level.first + index).to(tl.uint8)
        if level.above is not None:
            sees |= tl.load(level.above + src * n_nodes + node, node < n_nodes, 0)
        tl.store(visible + program * n_nodes + node, sees, node < n_nodes)
