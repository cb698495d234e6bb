"""The path of a tree that a round keeps."""

from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.decoding.lists.token_tree import TokenTree


@dataclass(frozen=True)
class AcceptedPath:
    """What a round keeps of its tree.

    Attributes:
        path: nodes kept, the root first, int64 `[B, D + 1]`; entries after `count` are 0.
        count: draft tokens kept, int64 `[B]`, 0 … D.
        emitted: tokens that the round adds to the list, int64 `[B, D + 1]`: `count` draft tokens and the
            bonus token after them; further entries are arbitrary.
    """

    path: Tensor
    count: Tensor
    emitted: Tensor


def accept(tree: TokenTree, emitted: Tensor) -> AcceptedPath:
    """Keep the path from the root along which every token is the one that is emitted at its parent.

    Args:
        tree: the proposals.
        emitted: the token after each node, int64 `[B, N]`.
    """
    matches = (tree.tokens == emitted.gather(1, tree.parents)) & tree.present
    matches[:, 0] = True
    kept = (matches[:, None, :] | ~tree.ancestors).all(-1)  # [B, N], the whole path to the node matches
    count, last = torch.where(kept, tree.depths, -1).max(-1)  # siblings differ, so the deepest kept node is unique
    on_path = tree.ancestors.gather(1, last[:, None, None].expand(-1, 1, tree.tokens.shape[1]))[:, 0]  # [B, N]
    # Every node that is off the path is written to a column of its own, which is cut off again.
    column = torch.where(on_path, tree.depths, tree.max_depth + 1)
    nodes = torch.arange(tree.tokens.shape[1], device=tree.tokens.device).expand_as(column)
    path = tree.parents.new_zeros(len(column), tree.max_depth + 2).scatter(1, column, nodes)[:, :-1]
    return AcceptedPath(path=path, count=count, emitted=emitted.gather(1, path))
