"""The GPU kernels behind `TritonOperations`, which says what they compute.

Where the device can (`EARLY`), a kernel is launched before the one whose results it reads has ended: it then asks for
weights, and moves what it will read besides into the L2 cache, while it waits. Weights alone are read before the wait,
since nothing changes them; moving a line to the L2 cache changes no value, whatever is written to it meanwhile.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def _let_next_start(EARLY: tl.constexpr):
    if EARLY:
        gdc_launch_dependents()


@triton.jit
def _wait_for_input(EARLY: tl.constexpr):
    if EARLY:
        gdc_wait()


@triton.jit
def _move_to_l2(addresses):
    """Ask for the cache lines at these addresses."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [addresses], dtype=tl.int32, is_pure=False, pack=1
    )


@triton.jit
def _move_weights_to_l2(weight, out, n_out, first, last, n_in, GATED: tl.constexpr, BLOCK_K: tl.constexpr):
    """Ask for columns `first` to `last` of the outputs `out`; addresses outside become the first of `weight`."""
    LINE: tl.constexpr = 1024 // weight.dtype.element_ty.primitive_bitwidth
    LINES: tl.constexpr = max(1, BLOCK_K // LINE)
    for start in range(first, last, BLOCK_K):
        column = start + LINE * tl.arange(0, LINES)
        inside = (out < n_out)[:, None] & (column < last)[None, :]
        place = out.to(tl.int64)[:, None] * n_in + column[None, :]
        _move_to_l2(weight + tl.where(inside, place, 0))
        if GATED:
            _move_to_l2(weight + tl.where(inside, place + n_out.to(tl.int64) * n_in, 0))


@triton.jit
def _store_scaled(result, scale, next_scaled, next_squares, place, token, token_mask, mask):
    """The next norm's work as far as a part of each token allows: its readers add the squares of the parts up."""
    exact = result.to(tl.float32)
    tl.store(next_scaled + place, (exact * scale.to(tl.float32)[None, :]).to(result.dtype), mask)
    square_sum = tl.sum(tl.where(mask, exact * exact, 0.0), 1)
    tl.store(next_squares + token * tl.num_programs(0) + tl.program_id(0), square_sum, token_mask)


@triton.jit
def norm_kernel(x, weight, y, n, eps, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    _let_next_start(EARLY)
    token = tl.program_id(0).to(tl.int64)
    unit = tl.arange(0, BLOCK)
    inside = unit < n
    scale = tl.load(weight + unit, inside, 0.0)
    _wait_for_input(EARLY)
    exact = tl.load(x + token * n + unit, inside, 0.0).to(tl.float32)
    factor = tl.rsqrt(tl.sum(exact * exact, 0) / n + eps)
    scaled = (exact * factor).to(y.dtype.element_ty) * scale
    tl.store(y + token * n + unit, scaled, inside)


@triton.jit
def linear_kernel(
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
    BLOCK_K: tl.constexpr,
    SPLITS: tl.constexpr,
    PRECISION: tl.constexpr,
    EARLY: tl.constexpr,
):
    _let_next_start(EARLY)
    out = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    token = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    out_mask, token_mask = out < n_out, token < n_tokens
    weight_row = out.to(tl.int64)[:, None] * n_in
    first, last = 0, n_in
    if SPLITS > 1:
        # Whole blocks of inputs, to one of as many results: `sum_kernel` adds them up.
        split_inputs = tl.cdiv(tl.cdiv(n_in, SPLITS), BLOCK_K) * BLOCK_K
        first = tl.program_id(2) * split_inputs
        last = tl.minimum(n_in, first + split_inputs)
        y += tl.program_id(2).to(tl.int64) * n_tokens * n_out
    if EARLY:
        if tl.program_id(1) == 0:
            _move_weights_to_l2(weight, out, n_out, first, last, n_in, GATED, BLOCK_K)
        _wait_for_input(EARLY)
    place = token.to(tl.int64)[:, None] * n_out + out[None, :]
    mask = token_mask[:, None] & out_mask[None, :]
    # What the result needs besides is read before the loop, so that nothing is waited for behind it.
    if NORMED:
        part = tl.arange(0, BLOCK_P)
        part_mask = token_mask[:, None] & (part < n_parts)[None, :]
        square = tl.load(squares + token[:, None] * n_parts + part[None, :], part_mask, 0.0)
        factor = tl.rsqrt(tl.sum(square, 1) / n_in + eps)
    if HAS_RESIDUAL:
        added = tl.load(residual + place, mask, 0.0).to(tl.float32)
    total = tl.zeros([BLOCK_T, BLOCK_N], tl.float32)
    total_up = tl.zeros([BLOCK_T, BLOCK_N], tl.float32)
    for start in range(first, last, BLOCK_K):
        column = start + tl.arange(0, BLOCK_K)
        inside = column < n_in
        part_x = tl.load(x + token[:, None] * n_in + column[None, :], token_mask[:, None] & inside[None, :], 0.0)
        w_mask = out_mask[:, None] & inside[None, :]
        w = tl.load(weight + weight_row + column[None, :], w_mask, 0.0)
        total = tl.dot(part_x, tl.trans(w), total, input_precision=PRECISION)
        if GATED:
            up = tl.load(weight + weight_row + n_out.to(tl.int64) * n_in + column[None, :], w_mask, 0.0)
            total_up = tl.dot(part_x, tl.trans(up), total_up, input_precision=PRECISION)
    if NORMED:
        total *= factor[:, None]
        total_up *= factor[:, None]
    if HAS_BIAS:
        total += tl.load(bias + out, out_mask, 0.0).to(tl.float32)[None, :]
    if GATED:
        total = total * tl.sigmoid(total) * total_up
    if HAS_RESIDUAL:
        total += added
    result = total.to(y.dtype.element_ty)
    tl.store(y + place, result, mask)
    if SCALES:
        scale = tl.load(next_norm + out, out_mask, 0.0)
        _store_scaled(result, scale, next_scaled, next_squares, place, token, token_mask, mask)


@triton.jit
def sum_kernel(
    splits,
    bias,
    residual,
    next_norm,
    y,
    next_scaled,
    next_squares,
    n_tokens,
    n_out,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    SCALES: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    EARLY: tl.constexpr,
):
    # Always in the same order, so that a result does not depend on which program was the first.
    _let_next_start(EARLY)
    out = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    token = tl.program_id(1) + tl.arange(0, 1)
    token_mask = token < n_tokens
    mask = token_mask[:, None] & (out < n_out)[None, :]
    place = token.to(tl.int64)[:, None] * n_out + out[None, :]
    if HAS_BIAS:
        shift = tl.load(bias + out, out < n_out, 0.0).to(tl.float32)
    if SCALES:
        scale = tl.load(next_norm + out, out < n_out, 0.0)
    _wait_for_input(EARLY)
    total = tl.zeros([1, BLOCK_N], tl.float32)
    for split in tl.static_range(SPLITS):
        total += tl.load(splits + split * n_tokens.to(tl.int64) * n_out + place, mask, 0.0)
    if HAS_BIAS:
        total += shift[None, :]
    if HAS_RESIDUAL:
        total += tl.load(residual + place, mask, 0.0).to(tl.float32)
    result = total.to(y.dtype.element_ty)
    tl.store(y + place, result, mask)
    if SCALES:
        _store_scaled(result, scale, next_scaled, next_squares, place, token, token_mask, mask)


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
    EARLY: tl.constexpr,
):
    # What `linear_kernel` computes, for few tokens: then time goes by in waiting for memory, not in multiplying. All
    # weights are in registers, or on their way, before the input is there. Each of the 8 warps takes an eighth of the
    # inputs by itself (a batched product to Triton), so that no register holds what another one holds too.
    _let_next_start(EARLY)
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
            _move_to_l2(lines + step * STEP)
        if SPREAD:
            # Programs that find no place beside the kernel before start late: others ask for what they will read.
            n_programs = tl.num_programs(0)
            other = (tl.program_id(0) + n_programs // 2) % n_programs
            lines += (other - tl.program_id(0)).to(tl.int64) * (BLOCK_N * n_in)
            for step in tl.static_range(0, STEPS, 2):
                _move_to_l2(lines + step * STEP)
        _wait_for_input(EARLY)
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
        _store_scaled(result, scale, next_scaled, next_squares, place, token, token_mask, mask)


@triton.jit
def vector_kernel(
    x,
    weight,
    bias,
    norm,
    residual,
    y,
    n_out,
    n_in,
    eps,
    HAS_BIAS: tl.constexpr,
    HAS_NORM: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    GATED: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EARLY: tl.constexpr,
):
    # One token: its products with the weights are summed as they are read, which no matrix unit would speed up.
    _let_next_start(EARLY)
    out = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    out_mask = out < n_out
    place = weight + out.to(tl.int64)[:, None] * n_in
    place_up = place + n_out.to(tl.int64) * n_in
    total = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    total_up = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    squares = tl.zeros([BLOCK_K], tl.float32)
    # The first block's weights are on their way before the input is there, each other's before the one ahead is summed.
    column = tl.arange(0, BLOCK_K)
    mask = out_mask[:, None] & (column < n_in)[None, :]
    w = tl.load(place + column[None, :], mask, 0.0)
    if GATED:
        up = tl.load(place_up + column[None, :], mask, 0.0)
    if EARLY:
        _move_weights_to_l2(weight, out, n_out, BLOCK_K, n_in, n_in, GATED, BLOCK_K)
        _wait_for_input(EARLY)
    for start in range(0, n_in, BLOCK_K):
        column = start + tl.arange(0, BLOCK_K)
        inside = column < n_in
        ahead = column + BLOCK_K
        mask = out_mask[:, None] & (ahead < n_in)[None, :]
        next_w = tl.load(place + ahead[None, :], mask, 0.0)
        part = tl.load(x + column, inside, 0.0).to(tl.float32)
        if HAS_NORM:
            squares += part * part
            part *= tl.load(norm + column, inside, 0.0).to(tl.float32)
        total += w.to(tl.float32) * part[None, :]
        w = next_w
        if GATED:
            next_up = tl.load(place_up + ahead[None, :], mask, 0.0)
            total_up += up.to(tl.float32) * part[None, :]
            up = next_up
    result, result_up = tl.sum(total, 1), tl.sum(total_up, 1)
    if HAS_NORM:
        factor = tl.rsqrt(tl.sum(squares, 0) / n_in + eps)
        result *= factor
        result_up *= factor
    if HAS_BIAS:
        result += tl.load(bias + out, out_mask, 0.0).to(tl.float32)
    if GATED:
        result = result * tl.sigmoid(result) * result_up
    if HAS_RESIDUAL:
        result += tl.load(residual + out, out_mask, 0.0).to(tl.float32)
    tl.store(y + out, result.to(y.dtype.element_ty), out_mask)


@triton.jit
def rotate_kernel(
    qkv,
    query_norm,
    key_norm,
    cosines,
    sines,
    positions,
    lengths,
    queries,
    keys,
    values,
    width,
    first,
    position_row_stride,
    position_stride,
    row_stride,
    head_stride,
    eps,
    HAS_NORM: tl.constexpr,
    N_QUERIES: tl.constexpr,
    N_KEYS: tl.constexpr,
    SIZE: tl.constexpr,
    EARLY: tl.constexpr,
):
    _let_next_start(EARLY)
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row, index = token // width, token % width
    unit = tl.arange(0, SIZE)
    _wait_for_input(EARLY)
    # The rotation pairs each unit with the one half a head away.
    partner = (unit + SIZE // 2) % SIZE
    source = qkv + (token * (N_QUERIES + 2 * N_KEYS) + head) * SIZE
    column = tl.load(lengths + row) + first + index
    if head >= N_QUERIES + N_KEYS:
        place = row * row_stride + (head - N_QUERIES - N_KEYS) * head_stride + column * SIZE
        tl.store(values + place + unit, tl.load(source + unit))
    else:
        own, other = tl.load(source + unit).to(tl.float32), tl.load(source + partner).to(tl.float32)
        if HAS_NORM:
            factor = tl.rsqrt(tl.sum(own * own, 0) / SIZE + eps)
            norm = query_norm if head < N_QUERIES else key_norm
            own = own * factor * tl.load(norm + unit).to(tl.float32)
            other = other * factor * tl.load(norm + partner).to(tl.float32)
        position = tl.load(positions + row * position_row_stride + index * position_stride)
        cosine = tl.load(cosines + position * SIZE + unit)
        sine = tl.load(sines + position * SIZE + unit)
        turned = own * cosine + tl.where(unit < SIZE // 2, -other, other) * sine
        if head < N_QUERIES:
            tl.store(queries + (token * N_QUERIES + head) * SIZE + unit, turned.to(queries.dtype.element_ty))
        else:
            place = row * row_stride + (head - N_QUERIES) * head_stride + column * SIZE
            tl.store(keys + place + unit, turned.to(keys.dtype.element_ty))


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
        _move_to_l2(keys + line)
        _move_to_l2(values + line)


@triton.jit
def attention_kernel(
    queries,
    keys,
    values,
    lengths,
    ancestors,
    seen,
    width,
    first,
    ancestor_row_stride,
    ancestor_token_stride,
    row_stride,
    head_stride,
    scale,
    CHAIN: tl.constexpr,
    N_KEYS: tl.constexpr,
    GROUP: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK_Q: tl.constexpr,
    BLOCK_S: tl.constexpr,
    PRECISION: tl.constexpr,
    EARLY: tl.constexpr,
):
    _let_next_start(EARLY)
    row, head = (tl.program_id(0) // N_KEYS).to(tl.int64), tl.program_id(0) % N_KEYS
    query = tl.program_id(1) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    token, member = query // GROUP, query % GROUP
    real = token < width
    unit = tl.arange(0, SIZE)
    place = ((row * width + token) * (N_KEYS * GROUP) + head * GROUP + member)[:, None] * SIZE + unit[None, :]
    base = row * row_stride + head * head_stride
    if EARLY:
        # The past's keys and values are read behind the wait as well. Before it, all that is known of the kernels
        # before is that they have started: launched early, they need not wait for one another either. And the first
        # one behind `keep_kernel`, which moves columns of the past, may start without seeing all that it wrote.
        _move_past_to_l2(keys + base, values + base, tl.load(lengths + row), SIZE, BLOCK_S)
        _wait_for_input(EARLY)
    # The length first, since every address behind it waits for it.
    past = tl.load(lengths + row).to(tl.int32)
    q = tl.load(queries + place, real[:, None], 0.0)
    end = past + first + width
    top = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    weight_sum = tl.zeros([BLOCK_Q], tl.float32)
    total = tl.zeros([BLOCK_Q, SIZE], tl.float32)
    # Blocks that all tokens see are masked too: behind a loop of their own, the last block's keys and values would be
    # asked for only when all before are summed up. What a block needs is asked for before any of it is waited for.
    for start in range(0, end, BLOCK_S):
        column = start + tl.arange(0, BLOCK_S)
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
):
    head = tl.program_id(0).to(tl.int64)
    row = (head // n_heads) % batch
    place = tl.arange(0, BLOCK_D)
    inside = place < depth
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


@triton.jit
def top_k_kernel(values, best, indices, n, K: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    bits = tl.load(values + row * n + place, place < n, 0.0).to(tl.int32, bitcast=True)
    # As integers that are in the order of the numbers. With the place behind them all differ, the first the greatest.
    order = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)
    rest = tl.where(place < n, (order << 32) | (BLOCK - 1 - place), -0x8000000000000000)
    for rank in tl.static_range(K):
        top = tl.max(rest, 0)
        rest = tl.where(rest == top, -0x8000000000000000, rest)
        found = (top >> 32).to(tl.int32)
        number = tl.where(found < 0, found ^ 0x7FFFFFFF, found).to(tl.float32, bitcast=True)
        tl.store(best + row * K + rank, number)
        tl.store(indices + row * K + rank, BLOCK - 1 - (top & 0xFFFFFFFF))
