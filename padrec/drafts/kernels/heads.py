"""What a draft's sequential heads add to its last passes."""

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from padrec.decoding.device.kernels.early_launch import let_next_start, wait_for_input


class Nodes(NamedTuple):
    """The k nodes of a depth, and where those above are; see `HeadStates`."""

    parents: Tensor
    sums: Tensor
    passes: Tensor | None
    n_nodes: int
    n_before: int
    n_passes: int
    sum_stride: int


class Followed(NamedTuple):
    """What the nodes' tokens add to their sums; see `DraftOperations.follow`."""

    tokens: Tensor
    slots: Tensor
    table: Tensor
    n_tokens: int
    sums: Tensor
    passes: Tensor | None


@triton.jit
def _advanced(sums, slot, place, rank, mask, rank_mask, number, followed, rank_size):
    """Sums after the nodes' tokens, unless these are first codes; the first program of a row stores them."""
    token = tl.load(followed.tokens + place, mask, 0) + tl.maximum(slot - 1, 0) * followed.n_tokens
    added = tl.load(followed.table + token[:, None] * rank_size + rank[None, :], rank_mask, 0.0).to(tl.float32)
    sums += tl.where(slot > 0, added, 0.0)
    first = tl.program_id(0) == 0
    tl.store(followed.sums + place[:, None] * rank_size + rank[None, :], sums, rank_mask & first)
    tl.store(followed.passes + place, number, mask & first)
    return sums


@triton.jit
def heads_kernel(
    nodes,
    followed,
    weight,
    base,
    out,
    above,
    visible,
    n_out,
    n_columns,
    rank_size,
    base_stride,
    FOLLOWS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    PRECISION: tl.constexpr,
    EARLY: tl.constexpr,
):
    """See `DraftOperations.follow` and `carry`: a program computes outputs of the nodes of a row, or of some of them.

    `followed` is None where nodes are not FOLLOWed, `above` where no nodes are seen.
    """
    # What grows the tree reads, before it waits, what was written before this kernel.
    let_next_start(EARLY, True)
    row = tl.program_id(1).to(tl.int64)
    unit = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    rank = tl.arange(0, BLOCK_R)
    unit_mask = unit < n_out
    place = unit.to(tl.int64)[:, None] * rank_size + rank[None, :]
    if FOLLOWS:
        # Known since the round began.
        slot = tl.load(followed.slots + row)
        weight += tl.maximum(slot - 1, 0) * n_out * rank_size
    w = tl.load(weight + place, unit_mask[:, None] & (rank < rank_size)[None, :], 0.0)
    wait_for_input(EARLY, True)
    node = tl.program_id(2) * BLOCK_T + tl.arange(0, BLOCK_T)
    mask = node < nodes.n_nodes
    rank_mask = mask[:, None] & (rank < rank_size)[None, :]
    place = row * nodes.n_nodes + node
    number = tl.load(nodes.parents + place, mask, 0)
    src = row * nodes.n_before + number
    sums = tl.load(nodes.sums + src[:, None] * nodes.sum_stride + rank[None, :], rank_mask, 0.0)
    if nodes.passes is not None:
        number = tl.load(nodes.passes + src, mask, 0)
    if FOLLOWS:
        sums = _advanced(sums, slot, place, rank, mask, rank_mask, number, followed, rank_size)
    hidden = (sums * tl.sigmoid(sums)).to(w.dtype)
    src = row * nodes.n_passes + number
    both = mask[:, None] & unit_mask[None, :]
    total = tl.load(base + src[:, None] * base_stride + unit[None, :], both, 0.0).to(tl.float32)
    total = tl.dot(hidden, tl.trans(w), total, input_precision=PRECISION)
    tl.store(out + place[:, None] * n_out + unit[None, :], total, both)
    if above is not None:
        column = tl.arange(0, BLOCK_C)[None, :]
        both = mask[:, None] & (column < n_columns) & (tl.program_id(0) == 0)
        seen = tl.load(above + src[:, None] * n_columns + column, both, 0)
        tl.store(visible + place[:, None] * n_columns + column, seen, both)
