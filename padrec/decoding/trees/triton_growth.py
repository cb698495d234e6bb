"""Trees that grow by fused GPU kernels: two launches for a depth, one for the tree, one for its forced tokens."""

from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from padrec.decoding.device.early_launch import launch_options, launches_early
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.free_decoding import FreeDecoding
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.sampling import Guess
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.lists.triton_arguments import STATES, block, in_bytes, in_rows, list_kinds, list_numbers, taking
from padrec.decoding.trees.kernels.forced import forced_kernel
from padrec.decoding.trees.kernels.growth import catalog_guess_kernel, frontier_kernel, guess_kernel, tree_kernel

# Of programs that put a tree together, and its forced tokens: more warps have less code each.
_TREE_WARPS, _FORCED_WARPS = 8, 16


class TritonGrowth:
    """See `Growth` and `TreeOperations.grow`; the constraint is the catalog's, or none.

    All candidates are written side by side as they grow, so that nothing needs to be put together in the end.
    """

    def __init__(
        self,
        root: Tensor,
        state: ListState,
        constraint: CatalogConstraint | FreeDecoding,
        guess: Guess,
        width: int,
        depth: int,
        nodes: int,
    ) -> None:
        self._root, self._state, self._constraint, self._guess = root, state, constraint, guess
        self._width, self._depth, self._nodes = width, depth, nodes
        self._launch = launch_options(launches_early(root.device))
        batch = len(root)
        n_candidates = width + (depth - 1) * width * width
        self._tokens = root.new_empty(batch, n_candidates)
        self._children = torch.empty_like(self._tokens)  # trie nodes
        self._child_scores = root.new_empty(batch, n_candidates, dtype=torch.float32)
        # Of the frontier of every depth.
        self._best = root.new_empty(batch, depth, width)
        self._scores = self._best.new_empty(self._best.shape, dtype=torch.float32)
        self._states = {
            f.name: root.new_empty(batch, depth, width, *getattr(state, f.name).shape[1:]) for f in fields(state)
        }
        self._grown = 0
        self._offset = 0
        self.frontier: Tensor
        self.parents: Tensor

    @property
    def slots(self) -> Tensor:
        """See `Growth.slots`."""
        return self._states["slot"][:, self._grown - 1]

    def grow(self, logits: Tensor, noise: Tensor | None) -> None:
        """See `Growth.grow`."""
        batch, n_nodes, _ = logits.shape
        gains = logits.new_empty(batch, n_nodes, self._width, dtype=torch.float32)
        # States and scores of the nodes, and how far the rows of these stand apart, in nodes.
        if self._grown == 0:
            before = {f.name: getattr(self._state, f.name).contiguous() for f in fields(self._state)}
            scores, apart = None, 1
        else:
            before = {name: value[:, self._grown - 1] for name, value in self._states.items()}
            scores, apart = self._scores[:, self._grown - 1], self._depth * self._width
        self._guess_tokens(logits, noise, gains, before, apart)
        self._choose_frontier(scores, gains, before, apart)
        self._grown += 1
        self._offset += n_nodes * self._width

    def _guess_tokens(
        self, logits: Tensor, noise: Tensor | None, gains: Tensor, before: dict[str, Tensor], apart: int
    ) -> None:
        batch, n_nodes, n_tokens = logits.shape
        rows = in_rows(logits)
        width, guess, tokens = self._width, self._guess, self._tokens[:, self._offset :]
        strides = (rows.stride(0), 0 if noise is None else noise.stride(0), tokens.stride(0))
        numbers = (n_nodes, n_tokens, *strides, guess.logit_scale, guess.noise_scale)
        options: dict[str, Any] = {
            "NOISY": noise is not None,
            "K": width,
            "BLOCK_K": block(width),
            **self._launch,
        }
        if isinstance(self._constraint, FreeDecoding):
            options |= taking(max(n_tokens, width))
            guess_kernel[(batch * n_nodes,)](rows, noise, gains, tokens, *numbers, **options)
            return
        trie = self._constraint.trie
        options |= taking(max(trie.max_children, width))
        catalog_guess_kernel[(batch * n_nodes,)](
            rows,
            noise,
            *(before[name] for name in ("node", "used", "count")),
            trie.first_child,
            trie.child_token,
            trie.low,
            trie.high,
            self._constraint.available,
            gains,
            tokens,
            self._children[:, self._offset :],
            *numbers,
            apart,
            self._constraint.list_length,
            len(trie.child_token),
            trie.first_leaf,
            trie.sink,
            self._constraint.vocabulary.separator_token,
            SEPARATED=self._constraint.vocabulary.separator,
            **options,
        )

    def _choose_frontier(self, scores: Tensor | None, gains: Tensor, before: dict[str, Tensor], apart: int) -> None:
        batch, n_nodes, width = gains.shape
        after = {name: value[:, self._grown] for name, value in self._states.items()}
        self.parents, self.frontier = (self._root.new_empty(batch, width) for _ in range(2))
        frontier_kernel[(batch,)](
            scores,
            gains,
            self._tokens[:, self._offset :],
            self._children[:, self._offset :],
            *(before.get(name) for name in ("slot", "used", "count")),
            self._child_scores[:, self._offset :],
            self._best[:, self._grown],
            self.parents,
            self.frontier,
            self._scores[:, self._grown],
            *(after.get(name) for name in STATES),
            n_nodes,
            self._tokens.shape[1],
            apart,
            self._depth * width,
            *list_numbers(self._constraint),
            **list_kinds(self._constraint),
            WIDTH=width,
            **taking(n_nodes * width),
            BLOCK_K=block(width),
            **self._launch,
        )

    def tree(self) -> TokenTree:
        """See `Growth.tree`."""
        batch, n_candidates = self._tokens.shape
        tree = _empty_tree(self._state.unsqueeze(), self._nodes, self._depth)
        tree_kernel[(batch,)](
            self._root.contiguous(),
            *(None if (of := getattr(self._state, name, None)) is None else of.contiguous() for name in STATES),
            self._tokens,
            self._children,
            self._child_scores,
            self._best,
            *(self._states.get(name) for name in ("slot", "used", "count")),
            self._root.new_empty(batch, n_candidates + self._nodes, dtype=torch.int32),
            *_arrays(tree),
            *list_numbers(self._constraint),
            **list_kinds(self._constraint),
            WIDTH=self._width,
            DEPTH=self._depth,
            N_NODES=self._nodes,
            BLOCK=block(n_candidates),
            BLOCK_N=block(self._nodes),
            num_warps=_TREE_WARPS,
            **self._launch,
        )
        return tree


def with_forced_runs(tree: TokenTree, constraint: CatalogConstraint, leaves: int, length: int) -> TokenTree:
    """See `TreeOperations.add_forced_runs`."""
    batch, n_old = tree.tokens.shape
    n_new = n_old + leaves * length
    grown = _empty_tree(tree.states, n_new, tree.max_depth + length)
    forced_kernel[(batch,)](
        *_arrays(tree),
        *_arrays(grown),
        constraint.trie.only_token,
        constraint.trie.first_child,
        *list_numbers(constraint),
        **list_kinds(constraint),
        N_OLD=n_old,
        LEAVES=leaves,
        LENGTH=length,
        BLOCK_E=block(leaves),
        BLOCK_N=block(n_old),
        BLOCK_M=block(n_new),
        num_warps=_FORCED_WARPS,
        **launch_options(launches_early(tree.tokens.device)),
    )
    return grown


def _arrays(tree: TokenTree) -> list[Tensor | None]:
    """What a tree consists of, as kernels take it."""
    states = (getattr(tree.states, name, None) for name in STATES)
    of_nodes = (tree.tokens, tree.parents, tree.depths, tree.ancestors, tree.scores, tree.present)
    return [None if x is None else in_bytes(x) for x in (*of_nodes, *states)]


def _empty_tree(like: ListState, n_nodes: int, max_depth: int) -> TokenTree:
    """A tree to be filled in, whose states are such as `like`, `[B, *]`."""
    kinds = {f.name: getattr(like, f.name) for f in fields(like)}
    batch = len(like.slot)
    tokens, parents, depths = (like.slot.new_empty(batch, n_nodes) for _ in range(3))
    return TokenTree(
        tokens,
        parents,
        depths,
        ancestors=tokens.new_empty(batch, n_nodes, n_nodes, dtype=torch.bool),
        states=replace(like, **{name: x.new_empty(batch, n_nodes, *x.shape[2:]) for name, x in kinds.items()}),
        scores=tokens.new_empty(batch, n_nodes, dtype=torch.float32),
        present=tokens.new_empty(batch, n_nodes, dtype=torch.bool),
        max_depth=max_depth,
    )
