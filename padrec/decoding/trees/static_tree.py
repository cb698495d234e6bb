"""Trees of a fixed shape."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from padrec.catalog import InputError, NonNegativeInt, check_arguments
from padrec.decoding.lists.list_state import concatenate
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.trees.tree_expansion import TreeContext, TreeExpansion, check_size


class StaticTree(TreeExpansion):
    """A tree of a given shape (EAGLE-1, arXiv 2401.15077).

    Args:
        choices: every node but the root, as the ranks along its path: `[0, 2]` is the third best child of the best
            child of the root. A node's parent must be listed too.

    Raises:
        InputError: no node, a node twice, a negative rank, a node without its parent, or a tree that is too large.
    """

    def __init__(self, choices: Sequence[Sequence[NonNegativeInt]]) -> None:
        check_arguments(StaticTree, locals())
        paths = sorted((tuple(choice) for choice in choices), key=lambda path: (len(path), path))
        known = {(), *paths}
        orphans = [path for path in paths if not path or path[:-1] not in known]
        if not paths or orphans or len(known) != len(paths) + 1:
            what = (
                f"node {list(orphans[0])} without its parent" if orphans else f"{len(paths)} nodes, some of them twice"
            )
            raise InputError(f"static tree with {what}: expected distinct paths of ranks, each with all its beginnings")
        self.depth, self.nodes = len(paths[-1]), 1 + len(paths)
        check_size(self.depth, self.nodes, len(paths))
        self._levels = [[path for path in paths if len(path) == depth] for depth in range(1, self.depth + 1)]
        parents = {path[:-1] for path in paths}
        self.leaves = len(known - parents)
        # The draft reads only nodes that have children.
        root: list[tuple[int, ...]] = [()]
        self._readers = [root] + [[path for path in level if path in parents] for level in self._levels[:-1]]
        self.draft_rows = sum(len(readers) for readers in self._readers[1:])
        self.draft_passes = self.depth
        nodes = [*root, *paths]
        self._parents = [nodes.index(path[:-1]) for path in nodes]

    def expand(self, context: TreeContext) -> TokenTree:
        """See `TreeExpansion.expand`."""
        root, state, constraint, steps = context.root, context.state, context.constraint, context.steps
        tokens, states = [root[:, None]], [state.unsqueeze()]
        scores = [torch.zeros(len(root), 1, dtype=torch.float32, device=root.device)]
        read_states, read_scores = states[0], scores[0]
        logits = steps.root_logits()[:, None]
        for depth, level in enumerate(self._levels):
            readers = self._readers[depth]
            if depth > 0:
                index = _index([self._levels[depth - 1].index(path) for path in readers], root)
                read_states, read_scores = states[-1].gather(index), scores[-1].gather(1, index)
                parents = _index([self._readers[depth - 1].index(path[:-1]) for path in readers], root)
                logits = steps.extend(tokens[-1].gather(1, index), parents, read_states.slot, depth)
            log_probs = context.choice.log_chances(logits, constraint.allowed(read_states), depth)  # [B, readers, V]
            ranks = min(max(path[-1] for path in level) + 1, log_probs.shape[-1])
            best, best_tokens = log_probs.topk(ranks)
            rows = [readers.index(path[:-1]) for path in level]
            places = [row * ranks + min(path[-1], ranks - 1) for row, path in zip(rows, level, strict=True)]
            index, above = _index(places, root), _index(rows, root)
            tokens.append(best_tokens.flatten(1).gather(1, index))
            scores.append(read_scores.gather(1, above) + best.flatten(1).gather(1, index).float())
            states.append(constraint.advance(read_states.gather(above), tokens[-1]))
        node_parents = _index(self._parents, root)
        return TokenTree.from_parents(
            torch.cat(tokens, 1), node_parents, concatenate(states), self.depth, torch.cat(scores, 1)
        )


def _index(values: list[int], like: Tensor) -> Tensor:
    """The same indices for every row, int64 `[B, len(values)]`."""
    return _on_device(tuple(values), like.device).expand(len(like), -1)


@cache
def _on_device(values: tuple[int, ...], device: torch.device) -> Tensor:
    # Cached: a copy to the device in every round would synchronise.
    with torch.inference_mode(False):
        return torch.tensor(values, device=device)
