"""What a tree grows by: the best tokens behind a node, and the best of all children of a depth."""

import triton
import triton.language as tl

from padrec.decoding.kernels.top_k import largest


@triton.jit
def _log_softmax(score):
    score -= tl.max(score, 0)
    return score - tl.log(tl.sum(tl.exp(score), 0))


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
    logit_scale,
    noise_scale,
    NOISY: tl.constexpr,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    # One program for a node, behind which every token may follow.
    row = tl.program_id(0).to(tl.int64)
    token = tl.arange(0, BLOCK)
    rank = tl.arange(0, BLOCK_K)
    inside = token < n_tokens
    score = tl.load(logits + row * logit_stride + token, inside, 0.0).to(tl.float32) * logit_scale
    if NOISY:
        score += tl.load(noise + row // n_nodes * noise_stride + token, inside, 0.0) * noise_scale
    score = _log_softmax(tl.where(inside, score, float("-inf")))
    # Where more children are asked for than there are tokens, some that may not follow fill them up.
    number, guess = largest(score, token < BLOCK, K, BLOCK, BLOCK_K)
    tl.store(gains + row * K + rank, number, rank < K)
    tl.store(guesses + row * K + rank, tl.where(guess < n_tokens, guess, 0), rank < K)


@triton.jit
def _steps(place, start, end, is_leaf, child_token, n_edges, sink, separator, SEPARATED: tl.constexpr):
    """Tokens behind a trie node, the nodes that they lead to, and whether there is a token at each place."""
    exists = start + place < end
    edge = tl.minimum(start + place, n_edges - 1)
    token = tl.load(child_token + edge)
    child = tl.where(exists, edge + 1, sink)
    if SEPARATED:
        # A leaf has no children: the first place is the separator's.
        ends = is_leaf & (place == 0)
        token = tl.where(ends, separator, token)
        child = tl.where(ends, 0, child)
        exists = exists | ends
    return token, child, exists


@triton.jit
def catalog_guess_kernel(
    logits,
    noise,
    node,
    used,
    count,
    first_child,
    child_token,
    low,
    high,
    gains,
    guesses,
    children,
    n_nodes,
    n_tokens,
    logit_stride,
    noise_stride,
    logit_scale,
    noise_scale,
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
):
    # One program for a node, behind which the catalog says what may follow: see `CatalogConstraint.continuations`.
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    at = tl.load(node + row)
    start, end = tl.load(first_child + at), tl.load(first_child + at + 1)
    is_leaf = (at >= first_leaf) & (at < sink)
    token, child, exists = _steps(place, start, end, is_leaf, child_token, n_edges, sink, separator, SEPARATED)
    # Of all leaves below a child those are left that the list has not used; the separator leads back to the root.
    first, last = tl.load(low + child), tl.load(high + child)
    left = last - first
    for item in range(list_length):
        leaf = tl.load(used + row * list_length + item)
        left -= ((leaf >= first) & (leaf < last)).to(tl.int64)
    free = exists & (left > 0) & (tl.load(count + row) < list_length)
    # Where nothing may follow, as behind the end of a list, whatever is chosen is never used.
    usable = free | (tl.max(free.to(tl.int32), 0) == 0)
    score = tl.load(logits + row * logit_stride + token).to(tl.float32) * logit_scale
    if NOISY:
        score += tl.load(noise + row // n_nodes * noise_stride + token) * noise_scale
    score = _log_softmax(tl.where(usable, score, float("-inf")))
    number, index = largest(score, place < BLOCK, K, BLOCK, BLOCK_K)
    rank = tl.arange(0, BLOCK_K)
    token, child, exists = _steps(index, start, end, is_leaf, child_token, n_edges, sink, separator, SEPARATED)
    tl.store(gains + row * K + rank, number, rank < K)
    tl.store(guesses + row * K + rank, token, rank < K)
    tl.store(children + row * K + rank, child, rank < K)


@triton.jit
def frontier_kernel(
    scores,
    gains,
    tokens,
    child_scores,
    best_scores,
    best,
    parents,
    frontier,
    children,
    slot,
    used,
    count,
    next_slot,
    next_node,
    next_used,
    next_count,
    n_nodes,
    list_length,
    first_leaf,
    sink,
    n_slots,
    first_code,
    separator,
    SEPARATED: tl.constexpr,
    IN_CATALOG: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    # One program for a row, whose children are WIDTH of each node.
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    n = n_nodes * WIDTH
    inside = place < n
    score = tl.load(scores + row * n_nodes + place // WIDTH, inside, 0.0)
    score += tl.load(gains + row * n + place, inside, 0.0)
    tl.store(child_scores + row * n + place, score, inside)
    number, index = largest(score, inside, WIDTH, BLOCK, BLOCK_K)
    rank = tl.arange(0, BLOCK_K)
    taken = rank < WIDTH
    to = row * WIDTH + rank
    token = tl.load(tokens + row * n + index, taken, 0)
    tl.store(best_scores + to, number, taken)
    tl.store(best + to, index, taken)
    tl.store(parents + to, index // WIDTH, taken)
    tl.store(frontier + to, token, taken)
    # States behind the tokens: see `Constraint.advance`.
    parent = row * n_nodes + index // WIDTH
    before = tl.load(slot + parent, taken, 0)
    after = tl.where(before < n_slots - 1, before + 1, 0)
    if SEPARATED:
        after = tl.where(before == n_slots - 1, n_slots + 1, after)
    other = tl.where(token == separator, n_slots, n_slots + 1)
    tl.store(next_slot + to, tl.where(token >= first_code, after, other), taken)
    if IN_CATALOG:
        child = tl.load(children + row * n + index, taken, 0)
        items = tl.load(count + parent, taken, 0)
        completed = (child >= first_leaf) & (child < sink) & (items < list_length)
        item = tl.arange(0, BLOCK_L)
        in_list = taken[:, None] & (item < list_length)[None, :]
        leaves = tl.load(used + parent[:, None] * list_length + item[None, :], in_list, 0)
        is_new = completed[:, None] & (item[None, :] == items[:, None])
        leaves = tl.where(is_new, (child - first_leaf)[:, None], leaves)
        tl.store(next_used + to[:, None] * list_length + item[None, :], leaves, in_list)
        tl.store(next_count + to, items + completed.to(tl.int64), taken)
        if not SEPARATED:
            child = tl.where(completed, 0, child)
        tl.store(next_node + to, child, taken)
