"""Dynamic trees grown by GPU kernels: two launches for each depth, one for the tree."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from padrec.decoding.device.early_launch import launch_options, launches_early
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.constraint import FreeDecoding
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.sampling import Guess
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.lists.triton_arguments import States, block, in_bytes, in_rows, list_arguments
from padrec.decoding.trees.kernels.growth import frontier_kernel, guess_kernel, tree_kernel
from padrec.decoding.trees.tree_growth import TreeGrowth

_TREE_WARPS = 8  # more warps have less code each


class TreeArrays(NamedTuple):
    """A `TokenTree` for kernels; list states are a tuple of their own."""

    tokens: Tensor
    parents: Tensor
    depths: Tensor
    ancestors: Tensor
    scores: Tensor
    present: Tensor

    @classmethod
    def of(cls, tree: TokenTree) -> "TreeArrays":
        """The tensors of a tree, contiguous and with booleans as bytes."""
        return cls(*(in_bytes(getattr(tree, name)) for name in cls._fields))


def empty_tree(like: ListState, n_nodes: int, max_depth: int) -> TokenTree:
    """An uninitialised tree with list states of the form of `like`, `[B]`."""
    batch = len(like.slot)
    tokens, parents, depths = (like.slot.new_empty(batch, n_nodes) for _ in range(3))
    return TokenTree(
        tokens,
        parents,
        depths,
        ancestors=tokens.new_empty(batch, n_nodes, n_nodes, dtype=torch.bool),
        states=like.map(lambda value: value.new_empty(batch, n_nodes, *value.shape[1:])),
        scores=tokens.new_empty(batch, n_nodes, dtype=torch.float32),
        present=tokens.new_empty(batch, n_nodes, dtype=torch.bool),
        max_depth=max_depth,
    )


class _Candidates(NamedTuple):
    """All nodes that grow, one depth after the other, `[B, C]`."""

    tokens: Tensor
    children: Tensor  # trie nodes
    scores: Tensor


class _Frontier(NamedTuple):
    """The best nodes of one depth, `[B, width]`."""

    best: Tensor  # indices among the candidates of the depth
    parents: Tensor
    tokens: Tensor
    scores: Tensor


class TritonGrowth(TreeGrowth):
    """`TreeGrowth` by kernels, under the catalog constraint or without one.

    All candidates are written side by side as they grow, so the end needs no concatenation.
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
        super().__init__(root, state, constraint, guess, width, nodes)
        self._depth, self._grown, self._offset = depth, 0, 0
        self._arguments: dict[str, Any] = list_arguments(constraint) | launch_options(launches_early(root.device))
        catalog = constraint if isinstance(constraint, CatalogConstraint) else None
        self._length_block = block(catalog.list_length if catalog else 0)
        self._n_followers = catalog.trie.max_children if catalog else constraint.vocabulary.size
        batch, n_candidates = len(root), width + (depth - 1) * width * width
        tokens, children = (root.new_empty(batch, n_candidates) for _ in range(2))
        scores = root.new_empty(batch, n_candidates, dtype=torch.float32)
        self._candidates = _Candidates(tokens, children, scores)
        # The frontiers of all depths.
        self._best = root.new_empty(batch, depth, width)
        self._best_scores = root.new_empty(batch, depth, width, dtype=torch.float32)
        self._frontier_states = state.map(lambda value: value.new_empty(batch, depth, width, *value.shape[1:]))

    @property
    def slots(self) -> Tensor:
        """See `TreeGrowth.slots`."""
        return self._frontier_states.slot[:, self._grown - 1]

    def grow(self, logits: Tensor, noise: Tensor | None) -> None:
        """See `TreeGrowth.grow`."""
        batch, n_nodes, n_tokens = logits.shape
        rows, width, stride = in_rows(logits), self._width, self._depth * self._width
        gains = logits.new_empty(batch, n_nodes, width, dtype=torch.float32)
        candidates = _Candidates(*(value[:, self._offset :] for value in self._candidates))
        self.parents, self.frontier = (self._root.new_empty(batch, width) for _ in range(2))
        frontier = _Frontier(self._best[:, self._grown], self.parents, self.frontier, self._best_scores[:, self._grown])
        shared = {
            "states": States.of(self._state) if self._grown == 0 else self._states_at(self._grown - 1),
            "candidates": candidates,
            "gains": gains,
            "n_nodes": n_nodes,
            "n_candidates": self._candidates.tokens.shape[1],
            "state_stride": 1 if self._grown == 0 else stride,
            "BLOCK_K": block(width),
            **self._arguments,
        }
        guess_kernel[(batch * n_nodes,)](
            logits=rows,
            noise=noise,
            n_tokens=n_tokens,
            logit_stride=rows.stride(0),
            noise_stride=0 if noise is None else noise.stride(0),
            logit_scale=self._guess.logit_scale,
            noise_scale=self._guess.noise_scale,
            K=width,
            **_block_of(max(self._n_followers, width)),
            **shared,
        )
        frontier_kernel[(batch,)](
            scores=None if self._grown == 0 else self._best_scores[:, self._grown - 1],
            frontier=frontier,
            frontier_states=self._states_at(self._grown),
            frontier_stride=stride,
            WIDTH=width,
            BLOCK_L=self._length_block,
            **_block_of(n_nodes * width),
            **shared,
        )
        self._grown += 1
        self._offset += n_nodes * width

    def _states_at(self, depth: int) -> States:
        """The states of a frontier, views with the stride of all depths."""
        return States(**vars(self._frontier_states.map(lambda value: value[:, depth])))

    def tree(self) -> TokenTree:
        """See `TreeGrowth.tree`."""
        batch, n_candidates = self._candidates.tokens.shape
        tree = empty_tree(self._state, self._nodes, self._depth)
        tree_kernel[(batch,)](
            root=self._root.contiguous(),
            root_states=States.of(self._state),
            candidates=self._candidates,
            best=self._best,
            states=States.of(self._frontier_states),
            places=self._root.new_empty(batch, n_candidates + self._nodes, dtype=torch.int32),
            tree=TreeArrays.of(tree),
            tree_states=States.of(tree.states),
            WIDTH=self._width,
            DEPTH=self._depth,
            N_NODES=self._nodes,
            BLOCK=block(n_candidates),
            BLOCK_N=block(self._nodes),
            BLOCK_L=self._length_block,
            num_warps=_TREE_WARPS,
            **self._arguments,
        )
        return tree


def _block_of(n: int) -> dict[str, Any]:
    """Options of a program that repeatedly takes the best of n values: few warps agree sooner."""
    return {"BLOCK": block(n), "num_warps": max(1, min(8, block(n) // 256))}
