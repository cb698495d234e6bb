"""Acceptance: what a round keeps of its tree, and what becomes of the lists."""

from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.decoding.device.compiled import compiled
from padrec.decoding.lists.accepted_path import accept
from padrec.decoding.lists.decoding_trace import RoundStatistics
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.rounds.list_buffer import ListBuffer
from padrec.decoding.trees.draft import Observation
from padrec.decoding.trees.tree_expansion import TreeExpansion


@dataclass(frozen=True)
class Accepted:
    """What a round kept of a tree.

    Attributes:
        path: nodes kept, the root first, int64 `[B, D + 1]`; see `AcceptedPath`.
        emitted: the tokens after them, int64 `[B, D + 1]`.
        slots: the slots of those tokens, int64 `[B, D + 1]`.
        count: tokens written to the lists, int64 `[B]`; entries after that many are arbitrary.
    """

    path: Tensor
    emitted: Tensor
    slots: Tensor
    count: Tensor

    def observation(self, features: Tensor) -> Observation:
        """What a draft learns, from the target's features of all nodes, `[B, N, d]`."""
        return Observation(features, self.path, self.emitted, self.slots, self.count)


@compiled
def accept_round(
    tokens: Tensor,
    log_probs: Tensor,
    states: ListState,
    tree: TokenTree,
    lists: ListBuffer,
    statistics: RoundStatistics,
    expansion: TreeExpansion,
) -> Accepted:
    """Add the tokens that a round emits to the lists, and count them.

    Args:
        tokens: the token after every node, by the verification rule; see `ChosenTokens`.
        log_probs: see `ChosenTokens`.
        states: see `ChosenTokens`.
        tree: the proposals.
        lists: written to.
        statistics: counted in.
        expansion: how the tree was made.
    """
    active = ~lists.finished
    statistics.add_round(active, expansion.draft_passes)
    if tree.max_depth == 0:
        return Accepted(tree.parents, tokens, states.slot, lists.extend(tokens, log_probs, states))
    outcome = accept(tree, tokens)
    count = lists.append(outcome.emitted, log_probs.gather(1, outcome.path), outcome.count + 1)
    # Move the lists after their new last token.
    states = states.gather(outcome.path)
    last = (count - 1).clamp(min=0)[:, None]
    lists.last.copy_(torch.where(count > 0, outcome.emitted.gather(1, last)[:, 0], lists.last))
    # Rows that have ended are never read again, so their states may be anything.
    lists.state.copy_(states.gather(last).squeeze())
    kept = torch.minimum(outcome.count, count)
    # Where the walk ended for want of the right proposal, that depth was missed, be it that the tree held other
    # tokens there or none: a tree that prunes must not look better than one that guesses. Deeper than the draft
    # could go nothing is missed.
    missed = (count > outcome.count) & (outcome.count < expansion.depth)
    statistics.add_proposals(states.slot[:, :-1], kept, kept + missed, active)
    return Accepted(outcome.path, outcome.emitted, states.slot, count)
