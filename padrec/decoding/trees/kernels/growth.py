"""The growth of a dynamic tree: best tokens after a node, best children of a depth, tree of the best.

`candidates` are all nodes that grow, one depth after the other; `frontier` are the nodes that the draft reads next. For
the tuples see `triton_tree_operations.py`.
"""

import triton
import triton.language as tl

from padrec.decoding.device.kernels.early_launch import let_next_start, wait_for_input
from padrec.decoding.lists.kernels.list_state import advance, continuations, load_items, next_slot, steps, store_items
from padrec.decoding.lists.kernels.scores import in_order, largest, log_softmax


@triton.jit
def level_kernel(
    logits,
    noise,
    scores,
    states,
    trie,
    lists,
    candidates,
    frontier,
    frontier_states,
    arrived,
    stays,
    before,
    n_nodes,
    n_tokens,
    n_candidates,
    offset,
    logit_stride,
    noise_stride,
    state_stride,
    frontier_stride,
    logit_scale,
    noise_scale,
    SEPARATED: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_L: tl.constexpr,
    EARLY: tl.constexpr,
):
    """The WIDTH best tokens after each node, one program for each, and the best of these children of a row.

    The program that ends last chooses the row's best children; `arrived`, which it leaves at 0, counts the others. In
    rows that stay, each program keeps its node in the frontier; `before` is the frontier that it is in.
    """
    # The kernel that computes the logits lets this one start when all other input is there.
    let_next_start(EARLY, True)
    program = tl.program_id(0).to(tl.int64)
    row, node = program // n_nodes, program % n_nodes
    if stays is not None:  # noqa: SIM102  # Triton evaluates both sides of `and`
        if tl.load(stays + row) != 0:
            wait_for_input(EARLY, True)
            _keep_node(
                row,
                node,
                states,
                trie,
                lists,
                candidates,
                frontier,
                frontier_states,
                before,
                n_candidates,
                state_stride,
                frontier_stride,
                WIDTH,
                BLOCK_K,
                BLOCK_L,
            )
            return
    index = tl.arange(0, BLOCK)
    # Not `trie is None`: triton 3.6 cannot compare a tuple that holds None.
    if states.node is None:
        token, usable = tl.minimum(index, n_tokens - 1), index < n_tokens
    else:
        state = row * state_stride + node
        # After the end of a list nothing is allowed, and nothing grows.
        token, usable, start, end, is_leaf = continuations(index, row, state, states, trie, lists, SEPARATED)
    if noise is not None:
        added = tl.load(noise + row * noise_stride + token) * noise_scale
    own_score = 0.0
    if scores is not None:
        own_score = tl.load(scores + row * state_stride + node)
    wait_for_input(EARLY, True)
    score = tl.load(logits + program * logit_stride + token).to(tl.float32) * logit_scale
    if noise is not None:
        score += added
    score = log_softmax(tl.where(usable, score, float("-inf")))
    # NaN would come before the root.
    score = tl.where(score == score, score, float("-inf"))
    # If there are fewer than K tokens, some that are not allowed fill the row up.
    gain, best = largest(score, index < BLOCK, WIDTH, BLOCK, BLOCK_K)
    rank = tl.arange(0, BLOCK_K)
    dst = row * n_candidates + node * WIDTH + rank
    if states.node is None:
        token = tl.where(best < n_tokens, best, 0)
    else:
        token, child, _ = steps(best, start, end, is_leaf, trie, lists, SEPARATED)
        tl.store(candidates.children + dst, child, rank < WIDTH)
    tl.store(candidates.tokens + dst, token, rank < WIDTH)
    tl.store(candidates.scores + dst, own_score + gain, rank < WIDTH)
    tl.debug_barrier()
    if tl.atomic_add(arrived + row, 1) == n_nodes - 1:
        tl.store(arrived + row, 0)
        _choose_frontier(
            row,
            states,
            trie,
            lists,
            candidates,
            frontier,
            frontier_states,
            n_nodes,
            n_candidates,
            offset,
            state_stride,
            frontier_stride,
            SEPARATED,
            WIDTH,
            BLOCK_C,
            BLOCK_K,
            BLOCK_L,
        )


@triton.jit
def _keep_node(
    row,
    node,
    states,
    trie,
    lists,
    candidates,
    frontier,
    frontier_states,
    before,
    n_candidates,
    state_stride,
    frontier_stride,
    WIDTH: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """Keep a node of a frontier as its own parent; its candidates, of a token that targets read, are no proposals."""
    rank = tl.arange(0, BLOCK_K)
    dst = row * n_candidates + node * WIDTH + rank
    tl.store(candidates.tokens + dst, 0, rank < WIDTH)
    tl.store(candidates.scores + dst, float("-inf"), rank < WIDTH)
    src, dst, place = row * state_stride + node, row * frontier_stride + node, row * WIDTH + node
    tl.store(frontier.best + dst, tl.load(before.best + src))
    tl.store(frontier.scores + dst, tl.load(before.scores + src))
    tl.store(frontier.parents + place, node)
    tl.store(frontier.tokens + place, tl.load(before.tokens + place))
    tl.store(frontier_states.slot + dst, tl.load(states.slot + src))
    if states.node is not None:
        tl.store(candidates.children + row * n_candidates + node * WIDTH + rank, trie.sink, rank < WIDTH)
        src, dst = src + tl.arange(0, 1), dst + tl.arange(0, 1)
        count, used = load_items(states, src, src >= 0, lists, BLOCK_L)
        store_items(frontier_states, dst, src >= 0, tl.load(states.node + src), count, used, lists, BLOCK_L)


@triton.jit
def _choose_frontier(
    row,
    states,
    trie,
    lists,
    candidates,
    frontier,
    frontier_states,
    n_nodes,
    n_candidates,
    offset,
    state_stride,
    frontier_stride,
    SEPARATED: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """The best children of all nodes of a row, which have WIDTH each."""
    index = tl.arange(0, BLOCK)
    inside = index < n_nodes * WIDTH
    score = tl.load(candidates.scores + row * n_candidates + index, inside, 0.0)
    best_score, best = largest(score, inside, WIDTH, BLOCK, BLOCK_K)
    rank = tl.arange(0, BLOCK_K)
    taken = rank < WIDTH
    dst = row * frontier_stride + rank
    token = tl.load(candidates.tokens + row * n_candidates + best, taken, 0)
    tl.store(frontier.best + dst, offset + best, taken)
    tl.store(frontier.scores + dst, best_score, taken)
    tl.store(frontier.parents + row * WIDTH + rank, best // WIDTH, taken)
    tl.store(frontier.tokens + row * WIDTH + rank, token, taken)
    # States after the tokens: see `Constraint.advance`.
    parent = row * state_stride + best // WIDTH
    slot = next_slot(tl.load(states.slot + parent, taken, 0), token, lists, SEPARATED)
    tl.store(frontier_states.slot + dst, slot, taken)
    if states.node is not None:
        child = tl.load(candidates.children + row * n_candidates + best, taken, 0)
        count, used = load_items(states, parent, taken, lists, BLOCK_L)
        child, count, used = advance(child, count, used, trie, lists, SEPARATED, BLOCK_L)
        store_items(frontier_states, dst, taken, child, count, used, lists, BLOCK_L)


@triton.jit
def _best(scores, inside, n_best, BLOCK: tl.constexpr):
    """Whether each score is one of the `n_best` best; of equal ones the first."""
    order = in_order(scores)
    # Find the greatest number that `n_best` scores reach, four bits at a time: 16 numbers are tried together.
    digit = tl.arange(0, 16)
    least = tl.full([1], -0x80000000, tl.int32)
    # A loop, like all loops of these kernels: code is read from memory in every round, and unrolled code would take
    # longer to read than to run.
    for step in range(8):
        tried = least + (digit << (28 - 4 * step))
        reached = tl.sum((inside[:, None] & (order[:, None] >= tried[None, :])).to(tl.int32), 0)
        # The first number is always reached.
        least += (tl.sum((reached >= n_best).to(tl.int32), 0) - 1) << (28 - 4 * step)
    above = inside & (order > least)
    equal = (inside & (order == least)).to(tl.int32)
    return above | ((equal > 0) & (tl.cumsum(equal, 0) <= n_best - tl.sum(above.to(tl.int32), 0)))


@triton.jit
def store_nodes(tree, states, index, mask, token, parent, depth, score, present, slot):
    tl.store(tree.tokens + index, token, mask)
    tl.store(tree.parents + index, parent.to(tl.int64), mask)
    tl.store(tree.depths + index, depth.to(tl.int64), mask)
    tl.store(tree.scores + index, score, mask)
    tl.store(tree.present + index, present.to(tl.uint8), mask)
    tl.store(states.slot + index, slot, mask)


@triton.jit
def tree_kernel(
    root,
    root_states,
    trie,
    lists,
    candidates,
    best,
    states,
    places,
    tree,
    tree_states,
    SEPARATED: tl.constexpr,
    WIDTH: tl.constexpr,
    DEPTH: tl.constexpr,
    N_NODES: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_L: tl.constexpr,
    EARLY: tl.constexpr,
):
    """The tree of the root and the best candidates; one program for a row.

    No child outscores its parent, which is the older one, so the parent of a kept node is kept.
    """
    let_next_start(EARLY)
    wait_for_input(EARLY)
    N_CANDIDATES: tl.constexpr = WIDTH + (DEPTH - 1) * WIDTH * WIDTH
    row = tl.program_id(0).to(tl.int64)
    candidate = tl.arange(0, BLOCK)
    inside = candidate < N_CANDIDATES
    score = tl.load(candidates.scores + row * N_CANDIDATES + candidate, inside, 0.0)
    kept = _best(score, inside, N_NODES - 1, BLOCK)
    place = tl.cumsum(kept.to(tl.int32), 0)
    # Look-up tables in memory: each candidate's place in the tree, and each node's candidate.
    places += row * (N_CANDIDATES + N_NODES)
    tl.store(places + candidate, place, inside)
    tl.store(places + N_CANDIDATES + place, candidate, kept)
    tl.debug_barrier()
    node = tl.arange(0, BLOCK_N)
    in_tree = node < N_NODES
    is_root = node == 0
    grown = in_tree & (node > 0)
    src = tl.load(places + N_CANDIDATES + node, grown, 0)
    # Level 0 has WIDTH candidates, the children of the root, each further level WIDTH of each of WIDTH nodes.
    depth = tl.where(src < WIDTH, 0, 1 + (src - WIDTH) // (WIDTH * WIDTH))
    reader = tl.where(src < WIDTH, 0, (src - WIDTH) % (WIDTH * WIDTH) // WIDTH)
    deeper = grown & (depth > 0)
    above = row * DEPTH * WIDTH + (depth - 1) * WIDTH + reader  # the parent in the frontier
    parent = tl.load(places + tl.load(best + above, deeper, 0), deeper, 0)
    # Walk up from every node until all walks have reached the root.
    sees = node[:, None] == node[None, :]
    ancestor = parent
    for _ in range(DEPTH):
        sees = sees | (ancestor[:, None] == node[None, :])
        ancestor = tl.gather(parent, ancestor, 0)
    both = in_tree[:, None] & in_tree[None, :]
    dst = row * N_NODES + node
    tl.store(tree.ancestors + dst[:, None] * N_NODES + node[None, :], sees.to(tl.uint8), both)
    src += row * N_CANDIDATES
    token = tl.where(is_root, tl.load(root + row), tl.load(candidates.tokens + src, grown, 0))
    score = tl.load(candidates.scores + src, grown, 0.0)
    root_slot = tl.load(root_states.slot + row)
    slot = tl.where(deeper, tl.load(states.slot + above, deeper, 0), root_slot)
    slot = tl.where(is_root, root_slot, next_slot(slot, token, lists, SEPARATED))
    depth = tl.sum(sees.to(tl.int32), 1) - 1
    store_nodes(tree, tree_states, dst, in_tree, token, parent, depth, score, score > float("-inf"), slot)
    if states.node is not None:
        child = tl.load(candidates.children + src, grown, 0)
        root_index = row + tl.arange(0, 1)
        root_count, root_used = load_items(root_states, root_index, root_index >= 0, lists, BLOCK_L)
        count, used = load_items(states, above, deeper, lists, BLOCK_L)
        count = tl.where(deeper, count, root_count)
        used = tl.where(deeper[:, None], used, root_used)
        # The root's state stays as it is: its `child` is 0 here, the trie's root, which completes no item.
        child, count, used = advance(child, count, used, trie, lists, SEPARATED, BLOCK_L)
        child = tl.where(is_root, tl.load(root_states.node + row), child)
        store_items(tree_states, dst, in_tree, child, count, used, lists, BLOCK_L)
