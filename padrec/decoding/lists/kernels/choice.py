"""The target's choice at a node of a tree."""

import triton
import triton.language as tl

from padrec.decoding.device.kernels.early_launch import let_next_start, wait_for_input
from padrec.decoding.lists.kernels.list_state import item_behind, log_softmax, may_follow, slot_behind, steps


@triton.jit
def choice_kernel(
    logits,
    noise,
    depths,
    state_slot,
    state_node,
    state_used,
    state_count,
    first_child,
    child_token,
    low,
    high,
    tokens,
    log_probs,
    next_slot,
    next_node,
    next_used,
    next_count,
    n_nodes,
    logit_stride,
    noise_stride,
    depth_stride,
    temperature,
    n_edges,
    list_length,
    first_leaf,
    sink,
    n_slots,
    first_code,
    separator,
    SEPARATED: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_L: tl.constexpr,
    EARLY: tl.constexpr,
):
    # One program for a node: see `choose_tokens`.
    let_next_start(EARLY, True)
    wait_for_input(EARLY, True)
    program = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    at, items, leaves = state_node + program, state_count + program, state_used + program * list_length
    token, usable, start, end, is_leaf = may_follow(
        place,
        at,
        items,
        leaves,
        first_child,
        child_token,
        low,
        high,
        list_length,
        n_edges,
        first_leaf,
        sink,
        separator,
        SEPARATED,
    )
    log_prob = tl.load(logits + program * logit_stride + token).to(tl.float32)
    if noise is not None:
        row, depth = program // n_nodes, tl.load(depths + program)
        added = tl.load(noise + row * noise_stride + depth * depth_stride + token)
    log_prob = log_softmax(tl.where(usable, log_prob, float("-inf")))
    score = log_prob
    if noise is not None:
        score = log_softmax(log_prob / temperature) + added
    # Of equal scores the first, which is that of the lowest token.
    index = tl.argmax(score, 0)
    tl.store(log_probs + program, tl.max(tl.where(place == index, log_prob, float("-inf")), 0))
    # The state behind the token: see `Constraint.advance`. What works for several nodes is given a block of one.
    one = tl.arange(0, 1)
    to = program + one
    token, child, _ = steps(index + one, start, end, is_leaf, child_token, n_edges, sink, separator, SEPARATED)
    tl.store(tokens + to, token)
    slot = slot_behind(tl.load(state_slot + to), token, n_slots, first_code, separator, SEPARATED)
    tl.store(next_slot + to, slot)
    item = tl.arange(0, BLOCK_L)[None, :]
    used = tl.load(leaves + item, item < list_length, 0)
    child, count, used = item_behind(
        child, tl.load(state_count + to), used, list_length, first_leaf, sink, SEPARATED, BLOCK_L
    )
    tl.store(next_used + to[:, None] * list_length + item, used, item < list_length)
    tl.store(next_node + to, child)
    tl.store(next_count + to, count)
