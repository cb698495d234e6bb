"""The growth of a dynamic tree: best tokens after a node, best children of a depth, tree of the best."""

import triton
import triton.language as tl

from padrec.decoding.device.kernels.early_launch import let_next_start, wait_for_input
from padrec.decoding.lists.kernels.list_state import item_behind, log_softmax, may_follow, slot_behind, steps
from padrec.decoding.lists.kernels.top_k import in_order, largest


@triton.jit
def guess_kernel(
    logits,
    noise,
    gains,
    guesses,
    n_nodes,
    n_tokens,
    logit_stride,
    noise_stride,
    guess_stride,
    logit_scale,
    noise_scale,
    NOISY: tl.constexpr,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EARLY: tl.constexpr,
):
    # One program for a node, behind which every token may follow.
    let_next_start(EARLY, True)
    program = tl.program_id(0).to(tl.int64)
    row, node = program // n_nodes, program % n_nodes
    token = tl.arange(0, BLOCK)
    inside = token < n_tokens
    if NOISY:
        added = tl.load(noise + row * noise_stride + token, inside, 0.0) * noise_scale
    wait_for_input(EARLY, True)
    score = tl.load(logits + program * logit_stride + token, inside, 0.0).to(tl.float32) * logit_scale
    if NOISY:
        score += added
    score = log_softmax(tl.where(inside, score, float("-inf")))
    # Where more children are asked for than there are tokens, some that may not follow fill them up.
    number, guess = largest(score, token < BLOCK, K, BLOCK, BLOCK_K)
    rank = tl.arange(0, BLOCK_K)
    tl.store(gains + program * K + rank, number, rank < K)
    tl.store(guesses + row * guess_stride + node * K + rank, tl.where(guess < n_tokens, guess, 0), rank < K)


@triton.jit
def catalog_guess_kernel(
    logits,
    noise,
    state_node,
    state_used,
    state_count,
    first_child,
    child_token,
    low,
    high,
    available,
    gains,
    guesses,
    children,
    n_nodes,
    n_tokens,
    logit_stride,
    noise_stride,
    guess_stride,
    logit_scale,
    noise_scale,
    state_stride,
    list_length,
    n_edges,
    first_leaf,
    sink,
    separator,
    SEPARATED: tl.constexpr,
    NOISY: tl.constexpr,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EARLY: tl.constexpr,
):
    # One program for a node, behind which the catalog says what may follow: see `CatalogConstraint.continuations`.
    # The kernel that computes the logits lets this one start when all else is there.
    let_next_start(EARLY, True)
    program = tl.program_id(0).to(tl.int64)
    row, node = program // n_nodes, program % n_nodes
    state = row * state_stride + node
    place = tl.arange(0, BLOCK)
    token, usable, start, end, is_leaf = may_follow(
        place,
        state_node + state,
        state_count + state,
        state_used + state * list_length,
        first_child,
        child_token,
        low,
        high,
        # One row has a number for every node, the sink included.
        None if available is None else available + row * (sink + 1),
        list_length,
        n_edges,
        first_leaf,
        sink,
        separator,
        SEPARATED,
    )
    if NOISY:
        added = tl.load(noise + row * noise_stride + token) * noise_scale
    wait_for_input(EARLY, True)
    score = tl.load(logits + program * logit_stride + token).to(tl.float32) * logit_scale
    if NOISY:
        score += added
    score = log_softmax(tl.where(usable, score, float("-inf")))
    number, index = largest(score, place < BLOCK, K, BLOCK, BLOCK_K)
    rank = tl.arange(0, BLOCK_K)
    token, child, _ = steps(index, start, end, is_leaf, child_token, n_edges, sink, separator, SEPARATED)
    to = row * guess_stride + node * K + rank
    tl.store(gains + program * K + rank, number, rank < K)
    tl.store(guesses + to, token, rank < K)
    tl.store(children + to, child, rank < K)


@triton.jit
def frontier_kernel(
    scores,
    gains,
    tokens,
    children,
    state_slot,
    state_used,
    state_count,
    child_scores,
    best,
    parents,
    frontier,
    best_scores,
    next_slot,
    next_node,
    next_used,
    next_count,
    n_nodes,
    child_stride,
    state_stride,
    next_stride,
    list_length,
    first_leaf,
    sink,
    n_slots,
    first_code,
    separator,
    SEPARATED: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_L: tl.constexpr,
    EARLY: tl.constexpr,
):
    # One program for a row, whose children are WIDTH of each node.
    let_next_start(EARLY, True)
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    n = n_nodes * WIDTH
    inside = place < n
    score = tl.zeros([BLOCK], tl.float32)
    if scores is not None:
        score = tl.load(scores + row * state_stride + place // WIDTH, inside, 0.0)
    wait_for_input(EARLY, True)
    score += tl.load(gains + row * n + place, inside, 0.0)
    tl.store(child_scores + row * child_stride + place, score, inside)
    number, index = largest(score, inside, WIDTH, BLOCK, BLOCK_K)
    rank = tl.arange(0, BLOCK_K)
    taken = rank < WIDTH
    to = row * next_stride + rank
    token = tl.load(tokens + row * child_stride + index, taken, 0)
    tl.store(best + to, index, taken)
    tl.store(best_scores + to, number, taken)
    tl.store(parents + row * WIDTH + rank, index // WIDTH, taken)
    tl.store(frontier + row * WIDTH + rank, token, taken)
    # States behind the tokens: see `Constraint.advance`.
    parent = row * state_stride + index // WIDTH
    before = tl.load(state_slot + parent, taken, 0)
    tl.store(next_slot + to, slot_behind(before, token, n_slots, first_code, separator, SEPARATED), taken)
    if state_used is not None:
        child = tl.load(children + row * child_stride + index, taken, 0)
        items = tl.load(state_count + parent, taken, 0)
        item = tl.arange(0, BLOCK_L)[None, :]
        in_list = taken[:, None] & (item < list_length)
        leaves = tl.load(state_used + parent[:, None] * list_length + item, in_list, 0)
        child, items, leaves = item_behind(child, items, leaves, list_length, first_leaf, sink, SEPARATED, BLOCK_L)
        tl.store(next_used + to[:, None] * list_length + item, leaves, in_list)
        tl.store(next_count + to, items, taken)
        tl.store(next_node + to, child, taken)


@triton.jit
def _kept(scores, inside, n_kept, BLOCK: tl.constexpr):
    """Which scores are the `n_kept` best; of equal ones the first."""
    order = in_order(scores)
    # The greatest number that so many scores reach, four bits at a time: that many numbers are tried together.
    digit = tl.arange(0, 16)
    least = tl.full([1], -0x80000000, tl.int32)
    # In a loop, as all loops of these kernels: their code comes from memory in every round, and would take longer to
    # read than to run.
    for step in range(8):
        tried = least + (digit << (28 - 4 * step))
        reached = tl.sum((inside[:, None] & (order[:, None] >= tried[None, :])).to(tl.int32), 0)
        # The first one is always reached.
        least += (tl.sum((reached >= n_kept).to(tl.int32), 0) - 1) << (28 - 4 * step)
    above = inside & (order > least)
    equal = (inside & (order == least)).to(tl.int32)
    return above | ((equal > 0) & (tl.cumsum(equal, 0) <= n_kept - tl.sum(above.to(tl.int32), 0)))


@triton.jit
def tree_kernel(
    root,
    root_slot,
    root_node,
    root_used,
    root_count,
    tokens,
    children,
    child_scores,
    best,
    state_slot,
    state_used,
    state_count,
    tree_places,
    tree_tokens,
    tree_parents,
    tree_depths,
    tree_ancestors,
    tree_scores,
    tree_present,
    tree_slot,
    tree_node,
    tree_used,
    tree_count,
    list_length,
    first_leaf,
    sink,
    n_slots,
    first_code,
    separator,
    SEPARATED: tl.constexpr,
    WIDTH: tl.constexpr,
    DEPTH: tl.constexpr,
    N_NODES: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_L: tl.constexpr,
    EARLY: tl.constexpr,
):
    let_next_start(EARLY)
    wait_for_input(EARLY)
    N_CANDIDATES: tl.constexpr = WIDTH + (DEPTH - 1) * WIDTH * WIDTH
    # One program for a row. No child outscores its parent, which is older, so that all that is kept hangs together.
    row = tl.program_id(0).to(tl.int64)
    candidate = tl.arange(0, BLOCK)
    inside = candidate < N_CANDIDATES
    score = tl.load(child_scores + row * N_CANDIDATES + candidate, inside, 0.0)
    kept = _kept(score, inside, N_NODES - 1, BLOCK)
    place = tl.cumsum(kept.to(tl.int32), 0)
    # Where each candidate stands in the tree, and which candidate each node is, for lack of another way to look it up.
    places = tree_places + row * (N_CANDIDATES + N_NODES)
    ids = places + N_CANDIDATES
    tl.store(places + candidate, place, inside)
    tl.store(ids + place, candidate, kept)
    tl.debug_barrier()
    node = tl.arange(0, BLOCK_N)
    in_tree = node < N_NODES
    is_root = node == 0
    grown = in_tree & (node > 0)
    of = tl.load(ids + node, grown, 0)
    # Of each level: WIDTH children of the root, then WIDTH of each of WIDTH nodes.
    level = tl.where(of < WIDTH, 0, 1 + (of - WIDTH) // (WIDTH * WIDTH))
    reader = tl.where(of < WIDTH, 0, (of - WIDTH) % (WIDTH * WIDTH) // WIDTH)
    behind_root = grown & (level == 0)
    deeper = grown & (level > 0)
    above = row * DEPTH * WIDTH + (level - 1) * WIDTH + reader  # the node that the draft read
    first = tl.where(level == 1, 0, WIDTH + (level - 2) * WIDTH * WIDTH)  # of the parents' level
    parent_of = first + tl.load(best + above, deeper, 0)
    parent = tl.load(places + parent_of, deeper, 0)
    to = row * N_NODES + node
    tl.store(tree_parents + to, parent.to(tl.int64), in_tree)
    token = tl.load(tokens + row * N_CANDIDATES + of, grown, 0)
    token = tl.where(is_root, tl.load(root + row), token)
    tl.store(tree_tokens + to, token, in_tree)
    tl.store(tree_depths + to, tl.where(is_root, 0, level + 1).to(tl.int64), in_tree)
    number = tl.load(child_scores + row * N_CANDIDATES + of, grown, 0.0)
    tl.store(tree_scores + to, number, in_tree)
    tl.store(tree_present + to, (number > float("-inf")).to(tl.uint8), in_tree)
    # States behind the tokens, as in `frontier_kernel`.
    before = tl.load(state_slot + above, deeper, 0)
    of_root = tl.load(root_slot + row)
    before = tl.where(behind_root, of_root, before)
    slot = slot_behind(before, token, n_slots, first_code, separator, SEPARATED)
    tl.store(tree_slot + to, tl.where(is_root, of_root, slot), in_tree)
    if state_used is not None:
        child = tl.load(children + row * N_CANDIDATES + of, grown, 0)
        items = tl.load(state_count + above, deeper, 0)
        items = tl.where(deeper, items, tl.load(root_count + row))
        item = tl.arange(0, BLOCK_L)[None, :]
        in_list = item < list_length
        leaves = tl.load(state_used + above[:, None] * list_length + item, deeper[:, None] & in_list, 0)
        leaves = tl.where(deeper[:, None], leaves, tl.load(root_used + row * list_length + item, in_list, 0))
        # The root's own state is left as it is: its `child` here is the trie's root, which completes nothing.
        child, items, leaves = item_behind(child, items, leaves, list_length, first_leaf, sink, SEPARATED, BLOCK_L)
        tl.store(tree_used + to[:, None] * list_length + item, leaves, in_tree[:, None] & in_list)
        tl.store(tree_count + to, items, in_tree)
        tl.store(tree_node + to, tl.where(is_root, tl.load(root_node + row), child), in_tree)
    # Up from every node, until all have come to the root.
    sees = node[:, None] == node[None, :]
    at = parent
    for _ in range(DEPTH):
        sees = sees | (at[:, None] == node[None, :])
        at = tl.gather(parent, at, 0)
    both = in_tree[:, None] & in_tree[None, :]
    tl.store(tree_ancestors + to[:, None] * N_NODES + node[None, :], sees.to(tl.uint8), both)
