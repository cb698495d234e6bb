"""Forced tokens after a tree's best leaves."""

import triton
import triton.language as tl

from padrec.decoding.device.kernels.early_launch import let_next_start, wait_for_input
from padrec.decoding.lists.kernels.list_state import advance, load_items, next_slot, store_items
from padrec.decoding.lists.kernels.scores import largest
from padrec.decoding.trees.kernels.growth import store_nodes


@triton.jit
def forced_runs_kernel(
    old,
    old_states,
    trie,
    lists,
    new,
    new_states,
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
    """See `TreeOperations.add_forced_runs`; one program for a row."""
    let_next_start(EARLY)
    wait_for_input(EARLY)
    row = tl.program_id(0).to(tl.int64)
    N_NEW: tl.constexpr = N_OLD + LENGTH * LEAVES
    # Copy the tree.
    index = tl.arange(0, BLOCK_N)
    inside = index < N_OLD
    src, copied = row * N_OLD + index, row * N_NEW + index
    parent = tl.load(old.parents + src, inside, 0)
    score = tl.load(old.scores + src, inside, 0.0)
    present = tl.load(old.present + src, inside, 0) != 0
    tokens, depth = tl.load(old.tokens + src, inside, 0), tl.load(old.depths + src, inside, 0)
    slot, node = tl.load(old_states.slot + src, inside, 0), tl.load(old_states.node + src, inside, 0)
    count, used = load_items(old_states, src, inside, lists, BLOCK_L)
    store_nodes(new, new_states, copied, inside, tokens, parent, depth, score, present, slot)
    store_items(new_states, copied, inside, node, count, used, lists, BLOCK_L)
    # Find the best leaves after which a token is forced. The root does not count as its own child.
    is_child = (inside & (index > 0))[None, :]
    has_children = tl.max(((parent[None, :] == index[:, None]) & is_child).to(tl.int32), 1)
    forced = (count < lists.length) & (tl.load(trie.only_token + node, inside, -1) >= 0)
    due = inside & forced & present & (has_children == 0)
    best_score, leaf = largest(tl.where(due, score, float("-inf")), inside, LEAVES, BLOCK_N, BLOCK_E)
    # Follow all runs together.
    run = tl.arange(0, BLOCK_E)
    mask = run < LEAVES
    parent = tl.where(mask, leaf, 0)
    src = row * N_OLD + parent
    goes_on = mask & (best_score > float("-inf"))
    slot, node = tl.load(old_states.slot + src), tl.load(old_states.node + src)
    depth, score = tl.load(old.depths + src), tl.load(old.scores + src)
    count, used = load_items(old_states, src, mask, lists, BLOCK_L)
    for step in range(LENGTH):
        token = tl.where(goes_on, tl.load(trie.only_token + node), 0)
        # The token leads to the node's only child, or from a leaf back to the root.
        is_leaf = (node >= trie.first_leaf) & (node < trie.sink)
        node = tl.where(goes_on, tl.where(is_leaf, 0, tl.load(trie.first_child + node) + 1), trie.sink)
        node, count, used = advance(node, count, used, trie, lists, SEPARATED, BLOCK_L)
        slot = next_slot(slot, token, lists, SEPARATED)
        place = N_OLD + step * LEAVES + run
        dst = row * N_NEW + place
        store_nodes(new, new_states, dst, mask, token, parent, depth + step + 1, score, goes_on, slot)
        store_items(new_states, dst, mask, node, count, used, lists, BLOCK_L)
        parent = place.to(tl.int64)
        goes_on = goes_on & (count < lists.length) & (tl.load(trie.only_token + node) >= 0)
    tl.debug_barrier()
    # A node of a run sees what its leaf sees, and the run up to itself.
    seeing = tl.arange(0, BLOCK_M)[:, None]
    seen = tl.arange(0, BLOCK_M)[None, :]
    run = tl.where(seeing < N_OLD, 0, (seeing - N_OLD) % LEAVES)
    src = tl.where(seeing < N_OLD, seeing, tl.load(new.parents + row * N_NEW + N_OLD + run))
    inside = (seeing < N_NEW) & (seen < N_NEW)
    above = tl.load(old.ancestors + (row * N_OLD + src) * N_OLD + seen, inside & (seen < N_OLD), 0)
    own = (seeing >= N_OLD) & (seen >= N_OLD) & (seen <= seeing) & ((seen - N_OLD) % LEAVES == run)
    tl.store(new.ancestors + (row * N_NEW + seeing) * N_NEW + seen, above | own.to(tl.uint8), inside)
