"""List states in kernels. For the tuples `states`, `trie` and `lists` see `triton_arguments.py`."""

import triton
import triton.language as tl


@triton.jit
def steps(index, start, end, is_leaf, trie, lists, SEPARATED: tl.constexpr):
    """Tokens that may follow a trie node, the nodes that they lead to, and whether there is a token at each index."""
    exists = start + index < end
    edge = tl.minimum(start + index, trie.last_edge)
    token = tl.load(trie.child_token + edge)
    child = tl.where(exists, edge + 1, trie.sink)
    if SEPARATED:
        # A leaf has no children but the separator, at index 0.
        ends = is_leaf & (index == 0)
        token = tl.where(ends, lists.separator, token)
        child = tl.where(ends, 0, child)
        exists = exists | ends
    return token, child, exists


@triton.jit
def continuations(index, row, state, states, trie, lists, SEPARATED: tl.constexpr):
    """Tokens that may follow one state of a row, and whether each is allowed: see `CatalogConstraint.continuations`.

    Also returns what `steps` needs: the node's first edge, one past its last edge, and whether it is a leaf.
    """
    node = tl.load(states.node + state)
    start, end = tl.load(trie.first_child + node), tl.load(trie.first_child + node + 1)
    is_leaf = (node >= trie.first_leaf) & (node < trie.sink)
    token, child, exists = steps(index, start, end, is_leaf, trie, lists, SEPARATED)
    # Count the unused leaves below each child; the separator leads back to the root. Leaf numbers fit 32 bits, which
    # are compared in half the time of 64.
    first, last = tl.load(trie.low + child).to(tl.int32), tl.load(trie.high + child).to(tl.int32)
    left = last - first
    if trie.available is not None:
        left = tl.load(trie.available + row * (trie.sink + 1) + child)
    for item in range(lists.length):
        leaf = tl.load(states.used + state * lists.length + item).to(tl.int32)
        left -= ((leaf >= first) & (leaf < last)).to(tl.int32)
    free = exists & (left > 0) & (tl.load(states.count + state) < lists.length)
    return token, free, start, end, is_leaf


@triton.jit
def next_slot(slot, token, lists, SEPARATED: tl.constexpr):
    """See `SemanticIDVocabulary.next_slot`."""
    code = tl.where(slot + 1 < lists.n_slots, slot + 1, 0)
    if SEPARATED:
        # A code after the last slot is no part of an item: its slot is `n_slots + 1`.
        code = tl.where(slot + 1 == lists.n_slots, slot + 2, code)
    other = (token != lists.separator).to(tl.int64) + lists.n_slots
    return tl.where(token >= lists.first_code, code, other)


@triton.jit
def advance(child, count, used, trie, lists, SEPARATED: tl.constexpr, BLOCK_L: tl.constexpr):
    """Trie nodes `[*]`, completed items `[*]` and used leaves `[*, BLOCK_L]` after steps to trie nodes `child`.

    See `CatalogConstraint.advance`.
    """
    completed = (child >= trie.first_leaf) & (child < trie.sink) & (count < lists.length)
    is_new = completed[:, None] & (tl.arange(0, BLOCK_L)[None, :] == count[:, None])
    used = tl.where(is_new, (child - trie.first_leaf)[:, None], used)
    if not SEPARATED:
        child = tl.where(completed, 0, child)
    return child, count + completed.to(tl.int64), used


@triton.jit
def load_items(states, index, mask, lists, BLOCK_L: tl.constexpr):
    """Completed items `[*]` and used leaves `[*, BLOCK_L]` of states."""
    item = tl.arange(0, BLOCK_L)[None, :]
    place = states.used + index[:, None] * lists.length + item
    return tl.load(states.count + index, mask, 0), tl.load(place, mask[:, None] & (item < lists.length), 0)


@triton.jit
def store_items(states, index, mask, node, count, used, lists, BLOCK_L: tl.constexpr):
    item = tl.arange(0, BLOCK_L)[None, :]
    place = states.used + index[:, None] * lists.length + item
    tl.store(states.node + index, node, mask)
    tl.store(states.count + index, count, mask)
    tl.store(place, used, mask[:, None] & (item < lists.length))
