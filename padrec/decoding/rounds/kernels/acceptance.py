"""What the target keeps of a tree, and what becomes of the lists."""

import triton
import triton.language as tl

from padrec.decoding.device.kernels.early_launch import let_next_start, wait_for_input


@triton.jit
def _deepest(tokens, parents, depths, present, chosen, N_NODES: tl.constexpr, DEPTH: tl.constexpr, BLOCK: tl.constexpr):
    """The deepest node whose path is the target's, and its depth; see `accept`."""
    node = tl.arange(0, BLOCK)
    inside = node < N_NODES
    parent = tl.load(parents + node, inside, 0)
    matches = tl.load(tokens + node, inside, 0) == tl.load(chosen + parent)
    proposed = tl.load(present + node, inside, 0) != 0
    kept = (inside & ((matches & proposed) | (node == 0))).to(tl.int32)
    parent = parent.to(tl.int32)
    for _ in range(DEPTH):
        kept &= tl.gather(kept, parent, 0)
    reached = tl.where(kept != 0, tl.load(depths + node, inside, 0), -1)
    count = tl.max(reached, 0)
    # Siblings differ, so that there is one.
    return tl.max(tl.where(reached == count, node, 0), 0), count


@triton.jit
def _count(
    attempted,
    accepted,
    accepted_lengths,
    slot,
    place,
    kept,
    reached,
    DEPTH: tl.constexpr,
):
    """See `RoundStatistics.add_proposals`; a list that was finished before has kept -1 and reached 0."""
    one = tl.full(place.shape, 1, tl.int64)
    of = slot * DEPTH + place
    tl.atomic_add(attempted + of, one, (place < DEPTH) & (place < reached), sem="relaxed")
    tl.atomic_add(accepted + of, one, (place < DEPTH) & (place < kept), sem="relaxed")
    tl.atomic_add(accepted_lengths + place, one, place == kept, sem="relaxed")


@triton.jit
def accept_kernel(
    tree_tokens,
    tree_parents,
    tree_depths,
    tree_ancestors,
    tree_present,
    chosen_tokens,
    chosen_log_probs,
    chosen_slot,
    chosen_node,
    chosen_used,
    chosen_count,
    list_tokens,
    list_log_probs,
    lengths,
    finished,
    last,
    state_slot,
    state_node,
    state_used,
    state_count,
    attempted,
    accepted,
    accepted_lengths,
    target_passes,
    draft_passes,
    path,
    emitted,
    slots,
    counts,
    n_tokens,
    eos,
    list_length,
    draft_depth,
    n_draft_passes,
    N_NODES: tl.constexpr,
    DEPTH: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_L: tl.constexpr,
    EARLY: tl.constexpr,
):
    # One program for a row.
    let_next_start(EARLY)
    wait_for_input(EARLY)
    row = tl.program_id(0).to(tl.int64)
    first = row * N_NODES
    deepest, n_kept = _deepest(
        tree_tokens + first,
        tree_parents + first,
        tree_depths + first,
        tree_present + first,
        chosen_tokens + first,
        N_NODES,
        DEPTH,
        BLOCK_N,
    )
    # The path's nodes by their depth, the root behind its end.
    node, place = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    on_path = tl.load(tree_ancestors + (first + deepest) * N_NODES + node, node < N_NODES, 0) != 0
    depth = tl.where(on_path, tl.load(tree_depths + first + node, node < N_NODES, 0), -1)
    way = tl.sum(tl.where(depth[:, None] == place[None, :], node[:, None], 0), 0)
    token = tl.load(chosen_tokens + first + way)
    slot = tl.load(chosen_slot + first + way)
    to = row * (DEPTH + 1) + place
    tl.store(path + to, way.to(tl.int64), place <= DEPTH)
    tl.store(emitted + to, token, place <= DEPTH)
    tl.store(slots + to, slot, place <= DEPTH)
    # See `ListBuffer.append`.
    length = tl.load(lengths + row)
    done = tl.load(finished + row) != 0
    active = done == 0
    is_eos = (token == eos).to(tl.int32)
    room = tl.where(active, tl.minimum(n_kept + 1, n_tokens - length), 0)
    written = (place < room) & (tl.cumsum(is_eos, 0) - is_eos == 0)
    end = row * (n_tokens + 1) + length + place
    tl.store(list_tokens + end, token, written)
    tl.store(list_log_probs + end, tl.load(chosen_log_probs + first + way), written)
    count = tl.sum(written.to(tl.int64), 0)
    tl.store(counts + row, count)
    tl.store(lengths + row, length + count)
    ended = (tl.sum(is_eos & written.to(tl.int32), 0) > 0) | (length + count == n_tokens)
    tl.store(finished + row, (done | ended).to(tl.uint8))
    # The state behind the new last token; rows that have ended are never read again.
    is_last = place == tl.maximum(count - 1, 0)
    newest = tl.sum(tl.where(is_last, token, 0), 0)
    tl.store(last + row, tl.where(count > 0, newest, tl.load(last + row)))
    source = first + tl.sum(tl.where(is_last, way, 0), 0)
    tl.store(state_slot + row, tl.load(chosen_slot + source))
    if state_used is not None:
        tl.store(state_node + row, tl.load(chosen_node + source))
        tl.store(state_count + row, tl.load(chosen_count + source))
        item = tl.arange(0, BLOCK_L)
        used = tl.load(chosen_used + source * list_length + item, item < list_length, 0)
        tl.store(state_used + row * list_length + item, used, item < list_length)
    # Where the walk ended for want of the right proposal, that depth was missed.
    if DEPTH > 0:
        kept = tl.minimum(n_kept, count)
        reached = kept + ((count > n_kept) & (n_kept < draft_depth)).to(tl.int64)
        kept, reached = tl.where(active, kept, -1), tl.where(active, reached, 0)
        _count(attempted, accepted, accepted_lengths, slot, place, kept, reached, DEPTH)
    tl.store(target_passes + row, tl.load(target_passes + row) + active.to(tl.int64))
    tl.store(draft_passes + row, tl.load(draft_passes + row) + active.to(tl.int64) * n_draft_passes)
