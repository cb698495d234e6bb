"""The inputs of a draft's decoder layers."""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from padrec.decoding.device.kernels.early_launch import let_next_start, wait_for_input


class FusionInputs(NamedTuple):
    """What layer inputs are made of; see `DraftOperations.fuse` and `StepTerms`."""

    tokens: Tensor
    mapped: Tensor
    table: Tensor
    slots: Tensor | None
    slot_terms: Tensor | None
    step: Tensor | None
    n_tokens: int
    n_before: int
    mapped_stride: int
    table_stride: int


@triton.jit
def fusion_kernel(
    inputs,
    level,
    hidden,
    qkv,
    visible,
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
    row, index = program // inputs.n_tokens, program % inputs.n_tokens
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = unit < n_inputs
    if inputs.step is not None:
        added = tl.load(inputs.step + unit, inside, 0.0).to(tl.float32)
    wait_for_input(EARLY)
    token = tl.load(inputs.tokens + program)
    src = row * inputs.n_before + index
    if visible is not None:
        src = row * inputs.n_before + tl.load(level.parents + program)
    before, of_token = inputs.mapped + src * inputs.mapped_stride, inputs.table + token * inputs.table_stride
    total = tl.load(before + unit, inside, 0.0).to(tl.float32) + tl.load(of_token + unit, inside, 0.0).to(tl.float32)
    if inputs.step is not None:
        if VECTOR:
            score = tl.load(before + n_inputs + unit, inside, 0.0).to(tl.float32)
            score += tl.load(of_token + n_inputs + unit, inside, 0.0).to(tl.float32)
        else:
            score = tl.load(before + n_inputs).to(tl.float32) + tl.load(of_token + n_inputs).to(tl.float32)
        total += tl.sigmoid(score) * added
    if inputs.slots is not None:
        of_slot = inputs.slot_terms + tl.load(inputs.slots + program) * n_inputs
        total += tl.load(of_slot + unit, inside, 0.0).to(tl.float32)
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
