"""What a tree grows by, as two launches for a depth: see `tree_growth.grow`."""

from dataclasses import fields
from typing import Any

import torch
import triton
from torch import Tensor

from padrec.decoding.constraint import CatalogConstraint, CatalogState, Constraint, FreeDecoding, ListState
from padrec.decoding.kernels.growth import catalog_guess_kernel, frontier_kernel, guess_kernel
from padrec.decoding.sampling import Guess

# Of a program, which takes one number after the other from all that its warps hold: fewer agree sooner.
_WARPS = 2


def grow_by_kernels(
    logits: Tensor,
    scores: Tensor,
    states: ListState,
    constraint: Constraint[ListState],
    guess: Guess,
    noise: Tensor | None,
    width: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, ListState]:
    """The attributes of a `Level`, in their order; the constraint is the catalog's, or none."""
    batch, n_nodes, n_tokens = logits.shape
    rows = logits.flatten(0, 1)  # often a part of a wider product, whose rows are further apart
    if rows.stride(1) != 1:
        rows = rows.contiguous()
    gains = logits.new_empty(batch, n_nodes, width, dtype=torch.float32)
    tokens = torch.empty_like(gains, dtype=torch.long)
    options: dict[str, Any] = {
        "NOISY": noise is not None,
        "K": width,
        "BLOCK_K": triton.next_power_of_2(width),
        "num_warps": _WARPS,
    }
    numbers = (
        n_nodes,
        n_tokens,
        rows.stride(0),
        0 if noise is None else noise.stride(0),
        guess.logit_scale,
        guess.noise_scale,
    )
    children = None
    if isinstance(constraint, CatalogConstraint):
        assert isinstance(states, CatalogState)
        children, trie, vocabulary = torch.empty_like(tokens), constraint.trie, constraint.vocabulary
        catalog_guess_kernel[(batch * n_nodes,)](
            rows,
            noise,
            states.node.contiguous(),
            states.used.contiguous(),
            states.count.contiguous(),
            trie.first_child,
            trie.child_token,
            trie.low,
            trie.high,
            gains,
            tokens,
            children,
            *numbers,
            constraint.list_length,
            len(trie.child_token),
            trie.first_leaf,
            trie.sink,
            vocabulary.separator_token,
            SEPARATED=vocabulary.separator,
            BLOCK=triton.next_power_of_2(max(trie.max_children, width)),
            **options,
        )
    else:
        block = triton.next_power_of_2(max(n_tokens, width))
        guess_kernel[(batch * n_nodes,)](rows, noise, gains, tokens, *numbers, BLOCK=block, **options)
    return _frontier(scores, gains, tokens, children, states, constraint)


def _frontier(
    scores: Tensor,
    gains: Tensor,
    tokens: Tensor,
    children: Tensor | None,
    states: ListState,
    constraint: Constraint[ListState],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, ListState]:
    """Choose among the children, whose trie nodes are `children`, `[B, k, width]`; see `grow_by_kernels`."""
    assert isinstance(constraint, CatalogConstraint | FreeDecoding)
    batch, n_nodes, width = gains.shape
    vocabulary = constraint.vocabulary
    child_scores, best_scores = gains.new_empty(batch, n_nodes * width), gains.new_empty(batch, width)
    best, parents, frontier = (tokens.new_empty(batch, width) for _ in range(3))
    kept = {f.name: getattr(states, f.name).contiguous() for f in fields(states)}
    after = type(states)(**{name: value.new_empty(batch, width, *value.shape[2:]) for name, value in kept.items()})
    in_catalog = isinstance(constraint, CatalogConstraint)
    list_length, first_leaf, sink = 1, 0, 0
    if isinstance(constraint, CatalogConstraint):
        list_length, first_leaf, sink = constraint.list_length, constraint.trie.first_leaf, constraint.trie.sink
    frontier_kernel[(batch,)](
        scores.contiguous(),
        gains,
        tokens,
        child_scores,
        best_scores,
        best,
        parents,
        frontier,
        children,
        kept["slot"],
        kept.get("used"),
        kept.get("count"),
        after.slot,
        *(getattr(after, name, None) for name in ("node", "used", "count")),
        n_nodes,
        list_length,
        first_leaf,
        sink,
        vocabulary.n_slots,
        vocabulary.first_code,
        vocabulary.separator_token,
        SEPARATED=vocabulary.separator,
        IN_CATALOG=in_catalog,
        WIDTH=width,
        BLOCK=triton.next_power_of_2(n_nodes * width),
        BLOCK_K=triton.next_power_of_2(width),
        BLOCK_L=triton.next_power_of_2(list_length),
        num_warps=_WARPS,
    )
    return tokens.flatten(1), child_scores, best, parents, frontier, best_scores, after
