"""Which proposals of a round are kept."""

from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.decoding.lists.token_tree import TokenTree


@dataclass(frozen=True)
class Acceptance:
    """The outcome of one round.

    Attributes:
        path: nodes kept, the root first, int64 `[B, D + 1]`; entries behind `count` are 0.
        count: draft tokens kept, int64 `[B]`, 0 … D.
        emitted: tokens that the round adds to the list, int64 `[B, D + 1]`: `count` draft tokens and the target's own
            bonus token; entries behind them are arbitrary.
    """

    path: Tensor
    count: Tensor
    emitted: Tensor


def verify(tree: TokenTree, chosen: Tensor) -> Acceptance:
    """Keep the path from the root along which every token is the one that the target chose at its parent.

    `chosen` holds the target's token at every node: its argmax, or a draw from its distribution. For a tree that does
    not depend on the draw this is the exact scheme of EAGLE-2 (children tried in order, accepted with probability p, p
    renormalised without them after a rejection) written in one step: both emit token x with probability p(x) and
    descend exactly when x is a child.

    It is lossless for any tree, also for one that was grown by looking at the noise behind the draws. What is emitted
    at a node is the target's choice there, a function of the tokens before it and of the noise of its position, so the
    list is the same function of prompt and noise whatever the tree; the tree only decides where a round ends.

    Args:
        tree: the proposals.
        chosen: the target's choice at each node, int64 `[B, N]`.
    """
    matches = (tree.tokens == chosen.gather(1, tree.parents)) & tree.present
    matches[:, 0] = True
    kept = (matches[:, None, :] | ~tree.ancestors).all(-1)  # [B, N], the whole path to the node matches
    count, last = torch.where(kept, tree.depths, -1).max(-1)  # siblings differ, so the deepest kept node is unique
    on_path = tree.ancestors.gather(1, last[:, None, None].expand(-1, 1, tree.tokens.shape[1]))[:, 0]  # [B, N]
    # Every node that is off the path is written to a column of its own, which is cut off again.
    column = torch.where(on_path, tree.depths, tree.max_depth + 1)
    nodes = torch.arange(tree.tokens.shape[1], device=tree.tokens.device).expand_as(column)
    path = tree.parents.new_zeros(len(column), tree.max_depth + 2).scatter(1, column, nodes)[:, :-1]
    return Acceptance(path=path, count=count, emitted=chosen.gather(1, path))
