"""List states in kernels: what may follow one, and the state after a token.

States are those of `CatalogConstraint`: slot, trie node, leaves used by the list, items completed. Without a catalog
there are slots alone.
"""

import triton
import triton.language as tl


@triton.jit
def log_softmax(score):
    score -= tl.max(score, 0)
    return score - tl.log(tl.sum(tl.exp(score), 0))


@triton.jit
def steps(place, start, end, is_leaf, child_token, n_edges, sink, separator, SEPARATED: tl.constexpr):
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
def may_follow(
    place,
    state_node,
    state_count,
    state_used,
    first_child,
    child_token,
    low,
    high,
    available,
    list_length,
    n_edges,
    first_leaf,
    sink,
    separator,
    SEPARATED: tl.constexpr,
):
    """Tokens after one list state, and whether each may be chosen: see `CatalogConstraint.continuations`.

    `available` points to the row's leaves that are not excluded below each trie node, or is None.

    Besides, what `steps` takes of the state's trie node: the first of its edges, one past the last, whether it is a
    leaf.
    """
    at = tl.load(state_node)
    start, end = tl.load(first_child + at), tl.load(first_child + at + 1)
    is_leaf = (at >= first_leaf) & (at < sink)
    token, child, exists = steps(place, start, end, is_leaf, child_token, n_edges, sink, separator, SEPARATED)
    # Of all leaves below a child those are left that the list has not used; the separator leads back to the root.
    # Leaves are numbered in 32 bits, which are compared in half the time of 64.
    first, last = tl.load(low + child).to(tl.int32), tl.load(high + child).to(tl.int32)
    left = last - first
    if available is not None:
        left = tl.load(available + child)
    for item in range(list_length):
        leaf = tl.load(state_used + item).to(tl.int32)
        left -= ((leaf >= first) & (leaf < last)).to(tl.int32)
    free = exists & (left > 0) & (tl.load(state_count) < list_length)
    # Where nothing may follow, as behind the end of a list, whatever is chosen is never used.
    return token, free | (tl.max(free.to(tl.int32), 0) == 0), start, end, is_leaf


@triton.jit
def slot_behind(before, token, n_slots, first_code, separator, SEPARATED: tl.constexpr):
    """See `SemanticIDVocabulary.next_slot`."""
    code = tl.where(before < n_slots - 1, before + 1, 0)
    if SEPARATED:
        code = tl.where(before == n_slots - 1, n_slots + 1, code)
    return tl.where(token >= first_code, code, tl.where(token == separator, n_slots, n_slots + 1))


@triton.jit
def item_behind(child, items, leaves, list_length, first_leaf, sink, SEPARATED: tl.constexpr, BLOCK_L: tl.constexpr):
    """Trie nodes `[*]` behind steps to `child`, items completed `[*]`, and leaves used `[*, BLOCK_L]`.

    See `CatalogConstraint.advance`.
    """
    completed = (child >= first_leaf) & (child < sink) & (items < list_length)
    is_new = completed[:, None] & (tl.arange(0, BLOCK_L)[None, :] == items[:, None])
    leaves = tl.where(is_new, (child - first_leaf)[:, None], leaves)
    if not SEPARATED:
        child = tl.where(completed, 0, child)
    return child, items + completed.to(tl.int64), leaves
