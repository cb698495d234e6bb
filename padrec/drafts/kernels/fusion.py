"""The inputs of a draft's decoder layers."""

import triton
import triton.language as tl

from padrec.decoding.device.kernels.early_launch import let_next_start, wait_for_input


@triton.jit
def fusion_kernel(
    tokens,
    mapped,
    table,
    slots,
    slot_terms,
    step,
    level,
    hidden,
    qkv,
    visible,
    n_tokens,
    n_before,
    mapped_stride,
    table_stride,
    n_units,
    n_inputs,
    n_nodes,
    VECTOR: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    EARLY: tl.constexpr,
):
    """See `DraftOperations.fuse`; one program for a token and a part of its inputs."""
    # level is a TreeLevel, or None as visible is: Triton cannot compare a tuple that holds None.
    let_next_start(EARLY)
    program = tl.program_id(0).to(tl.int64)
    row, index = program // n_tokens, program % n_tokens
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = unit < n_inputs
    if step is not None:
        added = tl.load(step + unit, inside, 0.0).to(tl.float32)
    wait_for_input(EARLY)
    token = tl.load(tokens + program)
    src = row * n_before + index
    if visible is not None:
        src = row * n_before + tl.load(level.parents + program)
    before, of_token = mapped + src * mapped_stride, table + token * table_stride
    total = tl.load(before + unit, inside, 0.0).to(tl.float32) + tl.load(of_token + unit, inside, 0.0).to(tl.float32)
    if step is not None:
        if VECTOR:
            score = tl.load(before + n_inputs + unit, inside, 0.0).to(tl.float32)
            score += tl.load(of_token + n_inputs + unit, inside, 0.0).to(tl.float32)
        else:
            score = tl.load(before + n_inputs).to(tl.float32) + tl.load(of_token + n_inputs).to(tl.float32)
        total += tl.sigmoid(score) * added
    if slot_terms is not None:
        total += tl.load(slot_terms + tl.load(slots + program) * n_inputs + unit, inside, 0.0).to(tl.float32)
    tl.store(hidden + program * n_units + unit, total.to(hidden.dtype.element_ty), unit < n_units)
    if qkv is not None:
        place = qkv + program * (n_inputs - n_units) + unit - n_units
        tl.store(place, total.to(qkv.dtype.element_ty), (unit >= n_units) & inside)
    if visible is not None:
        node = tl.arange(0, BLOCK_N)
        mask = (node < n_nodes) & (tl.program_id(1) == 0)
        sees = (node == level.first + index).to(tl.uint8)
        if level.above is not None:
            sees |= tl.load(level.above + src * n_nodes + node, mask, 0)
        tl.store(visible + program * n_nodes + node, sees, mask)
