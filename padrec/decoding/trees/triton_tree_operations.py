"""Tree operations by GPU kernels: a launch for each depth of a tree, one for the tree, one for forced tokens."""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from padrec.decoding.device.early_launch import launch_options, launches_early
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.constraint import Constraint
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.sampling import Guess
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.lists.triton_arguments import KnownConstraint, States, block, in_bytes, in_rows, list_arguments
from padrec.decoding.trees.kernels.forced_runs import forced_runs_kernel
from padrec.decoding.trees.kernels.growth import level_kernel, tree_kernel
from padrec.decoding.trees.tree_growth import TreeGrowth, TreeShape
from padrec.decoding.trees.tree_operations import TreeOperations

# The kernels hold all pairs of nodes in registers, or a row of which they take the best values one by one.
_MOST_NODES, _LONGEST_ROW, _MOST_TAKEN = 256, 8192, 32

_TREE_WARPS, _FORCED_WARPS = 8, 16  # more warps have less code each


class TritonTreeOperations(TreeOperations):
    """`TreeOperations` for the catalog constraint, or without one; PyTorch takes what is too large for registers."""

    def __init__(self) -> None:
        # Made before anything is captured, since a captured launch would clear it in every round.
        self._arrived: Tensor | None = None

    def grow(
        self, root: Tensor, state: ListState, constraint: Constraint[Any], guess: Guess, shape: TreeShape
    ) -> TreeGrowth:
        """See `TreeOperations.grow`."""
        known = cast(KnownConstraint, constraint)
        followers = known.trie.max_children if isinstance(known, CatalogConstraint) else known.vocabulary.size
        longest = max(followers, 1 + shape.n_candidates)
        if shape.nodes <= _MOST_NODES and shape.width <= _MOST_TAKEN and longest <= _LONGEST_ROW:
            if self._arrived is None or len(self._arrived) < len(root):
                self._arrived = torch.zeros(len(root), dtype=torch.int32, device=root.device)
            return TritonGrowth(root, state, known, guess, shape, self._arrived)
        return super().grow(root, state, constraint, guess, shape)

    def add_forced_runs(self, tree: TokenTree, constraint: Constraint[Any], leaves: int, length: int) -> TokenTree:
        """See `TreeOperations.add_forced_runs`."""
        n_old = tree.tokens.shape[1]
        n_new = n_old + leaves * length
        if not isinstance(constraint, CatalogConstraint) or n_new > _MOST_NODES:
            return super().add_forced_runs(tree, constraint, leaves, length)
        grown = _empty_tree(tree.states.squeeze(), n_new, tree.max_depth + length)
        forced_runs_kernel[(len(tree.tokens),)](
            old=_TreeArrays.of(tree),
            old_states=States.of(tree.states),
            new=_TreeArrays.of(grown),
            new_states=States.of(grown.states),
            N_OLD=n_old,
            LEAVES=leaves,
            LENGTH=length,
            BLOCK_E=block(leaves),
            BLOCK_N=block(n_old),
            BLOCK_M=block(n_new),
            BLOCK_L=block(constraint.list_length),
            num_warps=_FORCED_WARPS,
            **list_arguments(constraint),
            **launch_options(launches_early(tree.tokens.device)),
        )
        return grown


class _TreeArrays(NamedTuple):
    """A `TokenTree` for kernels; list states are a tuple of their own."""

    tokens: Tensor
    parents: Tensor
    depths: Tensor
    ancestors: Tensor
    scores: Tensor
    present: Tensor

    @classmethod
    def of(cls, tree: TokenTree) -> "_TreeArrays":
        """The tensors of a tree, contiguous and with booleans as bytes."""
        return cls(*(in_bytes(getattr(tree, name)) for name in cls._fields))


def _empty_tree(like: ListState, n_nodes: int, max_depth: int) -> TokenTree:
    """An uninitialised tree with list states of the form of `like`, `[B]`."""
    batch = len(like.slot)
    tokens, parents, depths = (like.slot.new_empty(batch, n_nodes) for _ in range(3))
    ancestors = tokens.new_empty(batch, n_nodes, n_nodes, dtype=torch.bool)
    states = like.map(lambda value: value.new_empty(batch, n_nodes, *value.shape[1:]))
    scores, present = tokens.new_empty(batch, n_nodes, dtype=torch.float32), ancestors.new_empty(batch, n_nodes)
    return TokenTree(tokens, parents, depths, ancestors, states, scores, present, max_depth)


class _Candidates(NamedTuple):
    """All nodes that grow, one depth after the other, `[B, C]`."""

    tokens: Tensor
    children: Tensor  # trie nodes
    scores: Tensor


class _Frontier(NamedTuple):
    """The best nodes of one depth, `[B, width]`."""

    best: Tensor  # indices among the candidates
    parents: Tensor
    tokens: Tensor
    scores: Tensor


class TritonGrowth(TreeGrowth):
    """`TreeGrowth` by kernels, under the catalog constraint or without one.

    All candidates are written side by side as they grow, so the end needs no concatenation. `arrived` is 0 for each
    row, before and after every growth: int32 `[B]`.
    """

    def __init__(
        self,
        root: Tensor,
        state: ListState,
        constraint: KnownConstraint,
        guess: Guess,
        shape: TreeShape,
        arrived: Tensor,
    ) -> None:
        super().__init__(root, state, constraint, guess, shape)
        self._grown, self._offset, self._arrived = 0, 0, arrived
        self._arguments: dict[str, Any] = list_arguments(constraint) | launch_options(launches_early(root.device))
        catalog = constraint if isinstance(constraint, CatalogConstraint) else None
        self._length_block = block(catalog.list_length if catalog else 0)
        self._n_followers = catalog.trie.max_children if catalog else constraint.vocabulary.size
        batch, width, depth = len(root), shape.width, shape.depth
        tokens, children = (root.new_empty(batch, shape.n_candidates) for _ in range(2))
        scores = root.new_empty(batch, shape.n_candidates, dtype=torch.float32)
        self._candidates = _Candidates(tokens, children, scores)
        # The frontiers of all depths.
        self._best = root.new_empty(batch, depth, width)
        self._best_scores = root.new_empty(batch, depth, width, dtype=torch.float32)
        self._frontier_states = state.map(lambda value: value.new_empty(batch, depth, width, *value.shape[1:]))

    @property
    def slots(self) -> Tensor:
        """See `TreeGrowth.slots`."""
        return self._frontier_states.slot[:, self._grown - 1]

    def grow(self, logits: Tensor, noise: Tensor | None, stays: Tensor | None = None) -> None:
        """See `TreeGrowth.grow`."""
        batch, n_nodes, n_tokens = logits.shape
        rows, width, stride = in_rows(logits), self._shape.width, self._shape.depth * self._shape.width
        before = None if self._grown == 0 else self._frontier_at(self._grown - 1)
        self.parents, self.frontier = (self._root.new_empty(batch, width) for _ in range(2))
        longest = block(max(self._n_followers, width))
        level_kernel[(batch * n_nodes,)](
            logits=rows,
            noise=noise,
            scores=None if before is None else before.scores,
            states=States.of(self._state) if self._grown == 0 else self._states_at(self._grown - 1),
            candidates=_Candidates(*(value[:, self._offset :] for value in self._candidates)),
            frontier=self._frontier_at(self._grown),
            frontier_states=self._states_at(self._grown),
            arrived=self._arrived,
            stays=None if stays is None else in_bytes(stays),
            before=before,
            n_nodes=n_nodes,
            n_tokens=n_tokens,
            n_candidates=self._shape.n_candidates,
            offset=self._offset,
            logit_stride=rows.stride(0),
            noise_stride=0 if noise is None else noise.stride(0),
            state_stride=1 if self._grown == 0 else stride,
            frontier_stride=stride,
            logit_scale=self._guess.logit_scale,
            noise_scale=self._guess.noise_scale,
            WIDTH=width,
            BLOCK=longest,
            BLOCK_C=block(n_nodes * width),
            BLOCK_K=block(width),
            BLOCK_L=self._length_block,
            # A program repeatedly takes the best of its values: few warps agree sooner.
            num_warps=max(1, min(8, longest // 256)),
            **self._arguments,
        )
        self._grown += 1
        self._offset += n_nodes * width

    def _frontier_at(self, depth: int) -> _Frontier:
        """The frontier of a depth, the last or the one before it; all but parents and tokens as of `_states_at`."""
        return _Frontier(self._best[:, depth], self.parents, self.frontier, self._best_scores[:, depth])

    def _states_at(self, depth: int) -> States:
        """The states of a frontier, views with the stride of all depths."""
        return States(**vars(self._frontier_states.map(lambda value: value[:, depth])))

    def tree(self) -> TokenTree:
        """See `TreeGrowth.tree`."""
        batch, (width, depth, nodes) = len(self._root), self._shape
        tree = _empty_tree(self._state, nodes, depth)
        tree_kernel[(batch,)](
            root=self._root.contiguous(),
            root_states=States.of(self._state),
            candidates=self._candidates,
            best=self._best,
            states=States.of(self._frontier_states),
            places=self._root.new_empty(batch, self._shape.n_candidates + nodes, dtype=torch.int32),
            tree=_TreeArrays.of(tree),
            tree_states=States.of(tree.states),
            WIDTH=width,
            DEPTH=depth,
            N_NODES=nodes,
            BLOCK=block(self._shape.n_candidates),
            BLOCK_N=block(nodes),
            BLOCK_L=self._length_block,
            num_warps=_TREE_WARPS,
            **self._arguments,
        )
        return tree
