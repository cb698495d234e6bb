"""The forced tokens behind a tree's best leaves."""

import triton
import triton.language as tl

from padrec.decoding.device.kernels.early_launch import let_next_start, wait_for_input
from padrec.decoding.lists.kernels.list_state import item_behind, slot_behind
from padrec.decoding.lists.kernels.top_k import largest


@triton.jit
def forced_kernel(
    old_tokens,
    old_parents,
    old_depths,
    old_ancestors,
    old_scores,
    old_present,
    old_slot,
    old_node,
    old_used,
    old_count,
    tokens,
    parents,
    depths,
    ancestors,
    scores,
    present,
    slot,
    node,
    used,
    count,
    only_token,
    first_child,
    list_length,
    first_leaf,
    sink,
    n_slots,
    first_code,
    separator,
    SEPARATED: tl.constexpr,
    N_OLD: tl.constexpr,
    LEAVES: tl.constexpr,
    LENGTH: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_L: tl.constexpr,
    EARLY: tl.constexpr,
):
    # One program for a row: see `ForcedRuns.extend`.
    let_next_start(EARLY)
    wait_for_input(EARLY)
    row = tl.program_id(0).to(tl.int64)
    N_NEW: tl.constexpr = N_OLD + LENGTH * LEAVES
    here = tl.arange(0, BLOCK_N)
    old = here < N_OLD
    come = row * N_OLD + here
    item = tl.arange(0, BLOCK_L)[None, :]
    in_list = item < list_length
    # What was there stays as it is.
    to = row * N_NEW + here
    parent = tl.load(old_parents + come, old, 0)
    score = tl.load(old_scores + come, old, 0.0)
    counts = tl.load(old_present + come, old, 0)
    at = tl.load(old_node + come, old, 0)
    items = tl.load(old_count + come, old, 0)
    tl.store(tokens + to, tl.load(old_tokens + come, old, 0), old)
    tl.store(parents + to, parent, old)
    tl.store(depths + to, tl.load(old_depths + come, old, 0), old)
    tl.store(scores + to, score, old)
    tl.store(present + to, counts, old)
    tl.store(slot + to, tl.load(old_slot + come, old, 0), old)
    tl.store(node + to, at, old)
    tl.store(count + to, items, old)
    kept = old[:, None] & in_list
    copied = tl.load(old_used + come[:, None] * list_length + item, kept, 0)
    tl.store(used + to[:, None] * list_length + item, copied, kept)
    # The best leaves behind which a token is forced. The root is its own parent, which makes it no parent.
    is_child = (old & (here > 0))[None, :]
    has_children = tl.max(((parent[None, :] == here[:, None]) & is_child).to(tl.int32), 1)
    forced = (items < list_length) & (tl.load(only_token + at, old, -1) >= 0)
    due = old & forced & (counts != 0) & (has_children == 0)
    number, leaf = largest(tl.where(due, score, float("-inf")), old, LEAVES, BLOCK_N, BLOCK_E)
    # What follows them.
    run = tl.arange(0, BLOCK_E)
    mask = run < LEAVES
    leaf = row * N_OLD + tl.where(mask, leaf, 0)
    runs_on = mask & (number > float("-inf"))
    at = tl.load(old_node + leaf)
    items = tl.load(old_count + leaf)
    place = tl.load(old_slot + leaf)
    depth = tl.load(old_depths + leaf)
    number = tl.load(old_scores + leaf)
    leaves = tl.load(old_used + leaf[:, None] * list_length + item, mask[:, None] & in_list, 0)
    before = leaf - row * N_OLD
    for step in range(LENGTH):
        token = tl.where(runs_on, tl.load(only_token + at), 0)
        # Where one token follows it leads to the only child, or from a leaf back to the root.
        is_leaf = (at >= first_leaf) & (at < sink)
        at = tl.where(runs_on, tl.where(is_leaf, 0, tl.load(first_child + at) + 1), sink)
        at, items, leaves = item_behind(at, items, leaves, list_length, first_leaf, sink, SEPARATED, BLOCK_L)
        place = slot_behind(place, token, n_slots, first_code, separator, SEPARATED)
        behind = N_OLD + step * LEAVES + run
        new = row * N_NEW + behind
        tl.store(tokens + new, token, mask)
        tl.store(parents + new, before, mask)
        tl.store(depths + new, depth + step + 1, mask)
        tl.store(scores + new, number, mask)
        tl.store(present + new, runs_on.to(tl.uint8), mask)
        tl.store(slot + new, place, mask)
        tl.store(node + new, at, mask)
        tl.store(count + new, items, mask)
        tl.store(used + new[:, None] * list_length + item, leaves, mask[:, None] & in_list)
        before = behind.to(tl.int64)
        runs_on = runs_on & (items < list_length) & (tl.load(only_token + at) >= 0)
    tl.debug_barrier()
    # A run sees what its leaf sees, and what of it stands before.
    seeing = tl.arange(0, BLOCK_M)[:, None]
    seen = tl.arange(0, BLOCK_M)[None, :]
    chain = tl.where(seeing < N_OLD, 0, (seeing - N_OLD) % LEAVES)
    first = tl.load(parents + row * N_NEW + N_OLD + chain)
    source = tl.where(seeing < N_OLD, seeing, first)
    inside = (seeing < N_NEW) & (seen < N_NEW)
    above = tl.load(old_ancestors + (row * N_OLD + source) * N_OLD + seen, inside & (seen < N_OLD), 0)
    own = (seeing >= N_OLD) & (seen >= N_OLD) & (seen <= seeing) & ((seen - N_OLD) % LEAVES == chain)
    tl.store(ancestors + (row * N_NEW + seeing) * N_NEW + seen, above | own.to(tl.uint8), inside)
