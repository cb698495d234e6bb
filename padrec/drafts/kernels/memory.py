"""What a draft remembers from one round to the next."""

import triton
import triton.language as tl

from padrec.decoding.device.kernels.early_launch import let_next_start, wait_for_input


@triton.jit
def kept_kernel(
    features,
    path,
    tokens,
    slots,
    count,
    kept_features,
    kept_tokens,
    kept_slots,
    kept_count,
    n_nodes,
    n_kept,
    n_units,
    BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):
    # One program for a place of the path.
    let_next_start(EARLY)
    program = tl.program_id(0).to(tl.int64)
    row = program // n_kept
    unit = tl.arange(0, BLOCK)
    inside = unit < n_units
    wait_for_input(EARLY)
    node = row * n_nodes + tl.load(path + program)
    tl.store(kept_features + program * n_units + unit, tl.load(features + node * n_units + unit, inside), inside)
    tl.store(kept_tokens + program, tl.load(tokens + program))
    tl.store(kept_slots + program, tl.load(slots + program))
    if program % n_kept == 0:
        tl.store(kept_count + row, tl.load(count + row))


@triton.jit
def last_kernel(output, count, root, lengths, n_tokens, n_units, BLOCK: tl.constexpr, EARLY: tl.constexpr):
    # One program for a row.
    let_next_start(EARLY)
    row = tl.program_id(0).to(tl.int64)
    unit = tl.arange(0, BLOCK)
    inside = unit < n_units
    wait_for_input(EARLY)
    n = tl.load(count + row)
    if n > 0:
        last = output + (row * n_tokens + n - 1) * n_units
        tl.store(root + row * n_units + unit, tl.load(last + unit, inside), inside)
        tl.store(lengths + row, tl.load(lengths + row) + n)
