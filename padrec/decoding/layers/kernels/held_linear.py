"""Linear maps whose programs hold their weights in registers."""

import triton
import triton.language as tl

from padrec.decoding.device.kernels.early_launch import let_next_start, move_to_l2, wait_for_input
from padrec.decoding.layers.kernels.norms import store_scaled


@triton.jit
def _rows_by_eight(rows, N: tl.constexpr):
    """Numbers of rows `[N]` as `[8, 1, N / 8, 1]`, the shape in which `_operand` reads them."""
    return tl.permute(tl.reshape(rows, [N // 8, 8]), (1, 0))[:, None, :, None]


@triton.jit
def _operand(addresses, mask, N: tl.constexpr, WARPS: tl.constexpr):
    """A matrix operand `[WARPS, N, 32]`, from addresses `[8, WARPS, N / 8, 32]`.

    A matrix instruction takes from each of the four threads that share a row two pairs of inputs that lie apart. Which
    inputs they are does not matter, as long as both operands agree. So a thread reads 8 inputs that lie together, in 16
    bytes, and they are declared to be those that the instruction wants of it: no exchange between threads is needed.
    """
    block = tl.load(addresses) if mask is None else tl.load(addresses, mask, 0.0)
    block = tl.reshape(block, [8, WARPS, N // 8, 4, 4, 2])
    return tl.reshape(tl.permute(block, (1, 2, 0, 4, 3, 5)), [WARPS, N, 32])


@triton.jit
def held_linear_kernel(
    x,
    squares,
    weight,
    bias,
    residual,
    next_norm,
    y,
    next_scaled,
    next_squares,
    n_tokens,
    n_out,
    n_in,
    n_parts,
    eps,
    NORMED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    SCALES: tl.constexpr,
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
    # What `linear_kernel` computes, for few tokens: then time goes by in waiting for memory, not in multiplying. All
    # weights are in registers, or on their way, before the input is there. Each of the 8 warps takes an eighth of the
    # inputs by itself (a batched product to Triton), so that no register holds what another one holds too.
    let_next_start(EARLY, ORDERED)
    WARPS: tl.constexpr = 8
    STEP: tl.constexpr = 32
    HALVES: tl.constexpr = 2 if GATED else 1
    ROWS: tl.constexpr = HALVES * BLOCK_N
    out = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    token = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    out_mask, token_mask = out < n_out, token < n_tokens
    # Of outputs, and behind them, where gated, of their upper halves; the last output stands for those outside.
    row = tl.arange(0, ROWS)
    row = tl.minimum(tl.program_id(0) * BLOCK_N + row % BLOCK_N, n_out - 1) + row // BLOCK_N * n_out
    first_column = tl.arange(0, WARPS) * (STEPS * STEP)
    column = first_column[None, :, None, None] + tl.arange(0, STEP)[None, None, None, :]
    weights = weight + (_rows_by_eight(row, ROWS).to(tl.int64) * n_in + column)
    held = ()
    for step in tl.static_range(HELD):
        held += (_operand(weights + step * STEP, None, ROWS, WARPS),)
    if HAS_BIAS:
        shift = tl.load(bias + out, out_mask, 0.0)
    if SCALES:
        scale = tl.load(next_norm + out, out_mask, 0.0)
    if EARLY:
        # Two steps of a warp share a cache line.
        lines = weight + (row.to(tl.int64)[:, None] * n_in + first_column[None, :])
        for step in tl.static_range(HELD, STEPS, 2):
            move_to_l2(lines + step * STEP)
        if SPREAD:
            # Programs that find no place beside the kernel before start late: others ask for what they will read.
            n_programs = tl.num_programs(0)
            other = (tl.program_id(0) + n_programs // 2) % n_programs
            lines += (other - tl.program_id(0)).to(tl.int64) * (BLOCK_N * n_in)
            for step in tl.static_range(0, STEPS, 2):
                move_to_l2(lines + step * STEP)
        wait_for_input(EARLY, ORDERED)
    inputs = x + (_rows_by_eight(token, BLOCK_T).to(tl.int64) * n_in + column)
    input_mask = _rows_by_eight(token_mask, BLOCK_T)
    place = token.to(tl.int64)[:, None] * n_out + out[None, :]
    mask = token_mask[:, None] & out_mask[None, :]
    # Small tiles are summed up in two chains, since each product of a chain waits for the one before.
    TWO: tl.constexpr = max(BLOCK_T, 16) * ROWS <= 256
    BATCHES: tl.constexpr = (STEPS + BATCH - 1) // BATCH
    read = ()
    total = tl.zeros([WARPS, BLOCK_T, ROWS], tl.float32)
    total_odd = tl.zeros([WARPS, BLOCK_T, ROWS], tl.float32)
    for batch in tl.static_range(BATCHES + 1):
        if batch < BATCHES:
            for step in tl.static_range(batch * BATCH, min(STEPS, (batch + 1) * BATCH)):
                read += (_operand(inputs + step * STEP, input_mask, BLOCK_T, WARPS),)
                if step >= HELD:
                    held += (_operand(weights + step * STEP, None, ROWS, WARPS),)
            if batch == 0:
                if NORMED:
                    part = tl.arange(0, BLOCK_P)
                    part_mask = token_mask[:, None] & (part < n_parts)[None, :]
                    square = tl.load(squares + token[:, None] * n_parts + part[None, :], part_mask, 0.0)
                if HAS_RESIDUAL:
                    added = tl.load(residual + place, mask, 0.0)
            if batch > 0 or BATCHES == 1:
                # The assembler would spare registers by asking for one input after the other, each behind a product
                # that waits for the one before. It may not move what is read across a barrier, nor products before a
                # number they are added to: one that is never read, and is zero.
                tl.debug_barrier()
                nothing = tl.load(x, n_tokens < 0, 0.0).to(tl.float32)
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
    # The warps' parts are added up: split brings those of one result together in one thread, in a single exchange,
    # where a sum would pass through shared memory twice.
    total = tl.reshape(tl.permute(total, (1, 2, 0)), [BLOCK_T, HALVES, BLOCK_N, WARPS])
    total = tl.reshape(tl.permute(total, (0, 2, 1, 3)), [BLOCK_T, BLOCK_N, HALVES, 2, 2, 2])
    part_even, part_odd = tl.split(total)
    part_even, part_odd = tl.split(part_even + part_odd)
    part_even, part_odd = tl.split(part_even + part_odd)
    total = part_even + part_odd
    if NORMED:
        total *= tl.rsqrt(tl.sum(square, 1) / n_in + eps)[:, None, None]
    if GATED:
        result, up = tl.split(total)
    else:
        result = tl.reshape(total, [BLOCK_T, BLOCK_N])
    if HAS_BIAS:
        result += shift.to(tl.float32)[None, :]
    if GATED:
        result = result * tl.sigmoid(result) * up
    if HAS_RESIDUAL:
        result += added.to(tl.float32)
    result = result.to(y.dtype.element_ty)
    tl.store(y + place, result, mask)
    if SCALES:
        store_scaled(result, scale, next_scaled, next_squares, place, token, token_mask, mask)
