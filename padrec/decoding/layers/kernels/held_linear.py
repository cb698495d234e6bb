"""Linear maps whose programs hold their weights in registers."""

import triton
import triton.language as tl

from padrec.decoding.device.kernels.early_launch import let_next_start, move_to_l2, wait_for_input
from padrec.decoding.layers.kernels.linear import load_squares, store_outputs


@triton.jit
def _rows_by_eight(rows, N: tl.constexpr):
    """Row numbers `[N]` as `[8, 1, N / 8, 1]`, the shape that `_operand` reads."""
    return tl.permute(tl.reshape(rows, [N // 8, 8]), (1, 0))[:, None, :, None]


@triton.jit
def _operand(addresses, mask, N: tl.constexpr, WARPS: tl.constexpr):
    """A matrix operand `[WARPS, N, 32]`, from addresses `[8, WARPS, N / 8, 32]`.

    A matrix instruction reads two separate pairs of inputs from each of the four threads that share a row; which inputs
    these are does not matter if both operands agree. So each thread reads 8 adjacent inputs (16 bytes), relabelled as
    the pairs that the instruction expects, and threads exchange nothing.
    """
    block = tl.load(addresses) if mask is None else tl.load(addresses, mask, 0.0)
    block = tl.reshape(block, [8, WARPS, N // 8, 4, 4, 2])
    return tl.reshape(tl.permute(block, (1, 2, 0, 4, 3, 5)), [WARPS, N, 32])


@triton.jit
def held_linear_kernel(
    inputs,
    weight,
    outputs,
    n_tokens,
    n_out,
    n_in,
    GATED: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    STEPS: tl.constexpr,
    HELD: tl.constexpr,
    BATCH: tl.constexpr,
    SPREAD: tl.constexpr,
    ORDERED: tl.constexpr,
    EARLY: tl.constexpr,
):
    # Computes what `linear_kernel` computes, for few tokens, where waiting for memory dominates. All weights are in
    # registers, or requested, before the input arrives. Each of the 8 warps takes an eighth of the inputs (a batched
    # product in Triton), so no two registers hold the same weight.
    let_next_start(EARLY, ORDERED)
    WARPS: tl.constexpr = 8
    STEP: tl.constexpr = 32
    HALVES: tl.constexpr = 2 if GATED else 1
    ROWS: tl.constexpr = HALVES * BLOCK_N
    out = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    token = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    out_mask, token_mask = out < n_out, token < n_tokens
    # Rows of the outputs, then, where gated, of their upper halves; outputs out of range read the last one's weights.
    row = tl.arange(0, ROWS)
    row = tl.minimum(tl.program_id(0) * BLOCK_N + row % BLOCK_N, n_out - 1) + row // BLOCK_N * n_out
    first_column = tl.arange(0, WARPS) * (STEPS * STEP)
    column = first_column[None, :, None, None] + tl.arange(0, STEP)[None, None, None, :]
    weights = weight + (_rows_by_eight(row, ROWS).to(tl.int64) * n_in + column)
    held = ()
    for step in tl.static_range(HELD):
        held += (_operand(weights + step * STEP, None, ROWS, WARPS),)
    shift = tl.load(outputs.bias + out, out_mask, 0.0) if outputs.bias is not None else None
    scale = tl.load(outputs.next_norm + out, out_mask, 0.0) if outputs.next_norm is not None else None
    if EARLY:
        # Two steps of a warp share a cache line.
        lines = weight + (row.to(tl.int64)[:, None] * n_in + first_column[None, :])
        for step in tl.static_range(HELD, STEPS, 2):
            move_to_l2(lines + step * STEP)
        if SPREAD:
            # Programs that do not fit beside the previous kernel start late: others prefetch their weights.
            n_programs = tl.num_programs(0)
            other = (tl.program_id(0) + n_programs // 2) % n_programs
            lines += (other - tl.program_id(0)).to(tl.int64) * (BLOCK_N * n_in)
            for step in tl.static_range(0, STEPS, 2):
                move_to_l2(lines + step * STEP)
        wait_for_input(EARLY, ORDERED)
    x = inputs.x + (_rows_by_eight(token, BLOCK_T).to(tl.int64) * n_in + column)
    input_mask = _rows_by_eight(token_mask, BLOCK_T)
    place = token.to(tl.int64)[:, None] * n_out + out[None, :]
    mask = token_mask[:, None] & out_mask[None, :]
    # Small tiles are summed in two chains, since each product of a chain waits for the previous one.
    TWO: tl.constexpr = max(BLOCK_T, 16) * ROWS <= 256
    BATCHES: tl.constexpr = (STEPS + BATCH - 1) // BATCH
    read = ()
    total = tl.zeros([WARPS, BLOCK_T, ROWS], tl.float32)
    total_odd = tl.zeros([WARPS, BLOCK_T, ROWS], tl.float32)
    for batch in tl.static_range(BATCHES + 1):
        if batch < BATCHES:
            for step in tl.static_range(batch * BATCH, min(STEPS, (batch + 1) * BATCH)):
                read += (_operand(x + step * STEP, input_mask, BLOCK_T, WARPS),)
                if step >= HELD:
                    held += (_operand(weights + step * STEP, None, ROWS, WARPS),)
            if batch == 0:
                if inputs.squares is not None:
                    square = load_squares(inputs, token, token_mask, BLOCK_P)
                added = tl.load(outputs.residual + place, mask, 0.0) if outputs.residual is not None else None
            if batch > 0 or BATCHES == 1:
                # To save registers, the assembler would delay each read until after the previous product. It moves no
                # read across a barrier, and no product before the number it is added to: here a masked read, zero.
                tl.debug_barrier()
                nothing = tl.load(inputs.x, n_tokens < 0, 0.0).to(tl.float32)
                total += nothing
                if TWO:
                    total_odd += nothing
        if batch > 0:
            for step in tl.static_range((batch - 1) * BATCH, min(STEPS, batch * BATCH)):
                if TWO and step % 2 == 1:
                    total_odd = tl.dot(read[step], tl.permute(held[step], (0, 2, 1)), total_odd)
                else:
                    total = tl.dot(read[step], tl.permute(held[step], (0, 2, 1)), total)
    if TWO:
        total += total_odd
    # Add up the warps' parts: `split` gathers those of one result in one thread in a single exchange, where `sum` would
    # pass through shared memory twice.
    total = tl.reshape(tl.permute(total, (1, 2, 0)), [BLOCK_T, HALVES, BLOCK_N, WARPS])
    total = tl.reshape(tl.permute(total, (0, 2, 1, 3)), [BLOCK_T, BLOCK_N, HALVES, 2, 2, 2])
    part_even, part_odd = tl.split(total)
    part_even, part_odd = tl.split(part_even + part_odd)
    part_even, part_odd = tl.split(part_even + part_odd)
    total = part_even + part_odd
    if inputs.squares is not None:
        total *= tl.rsqrt(tl.sum(square, 1) / n_in + inputs.eps)[:, None, None]
    up = None
    if GATED:
        y, up = tl.split(total)
    else:
        y = tl.reshape(total, [BLOCK_T, BLOCK_N])
    store_outputs(y, up, shift, added, scale, outputs, place, token, token_mask, mask)
