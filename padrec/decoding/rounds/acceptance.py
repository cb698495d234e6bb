"""Acceptance: the path of a tree that a round keeps, and the lists after it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.decoding.device.compiled import compiled
from padrec.decoding.lists.decoding_trace import RoundStatistics
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.lists.verification import accept
from padrec.decoding.rounds.list_buffer import ListBuffer
from padrec.decoding.trees.draft import Observation
from padrec.decoding.trees.tree_expansion import TreeExpansion


@dataclass(frozen=True)
class Accepted:
    """The part of a tree that a round keeps.

    Attributes:
        path: nodes kept, the root first, int64 `[B, D + 1]`; see `AcceptedPath`.
        emitted: the tokens after them, int64 `[B, D + 1]`.
        slots: slots of these tokens, int64 `[B, D + 1]`.
        count: tokens written to the lists, int64 `[B]`; later entries of the others are arbitrary.
    """

    path: Tensor
    emitted: Tensor
    slots: Tensor
    count: Tensor

    def observation(self, features: Tensor) -> Observation:
        """What the draft learns, given the target's features of all nodes, `[B, N, d]`."""
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
    """Append the tokens that a round emits to the lists, and count them.

    Args:
        tokens: the token after every node, by the verification rule; with the next two, see `ChosenTokens`.
        log_probs: their log-probabilities.
        states: list states after them.
        tree: the proposals.
        lists: changed in place.
        statistics: changed in place.
        expansion: the one that grew the tree.
    """
    active = ~lists.finished
    statistics.add_round(active, expansion.draft_passes)
    if tree.max_depth == 0:
        return Accepted(tree.parents, tokens, states.slot, lists.extend(tokens, log_probs, states))
    outcome = accept(tree, tokens)
    count = lists.append(outcome.emitted, log_probs.gather(1, outcome.path), outcome.count + 1)
    states = states.gather(outcome.path)
    last = (count - 1).clamp(min=0)[:, None]
    lists.last.copy_(torch.where(count > 0, outcome.emitted.gather(1, last)[:, 0], lists.last))
    # Finished rows are never read again, so their states may be anything.
    lists.state.copy_(states.gather(last).squeeze())
    kept = torch.minimum(outcome.count, count)
    # The first depth without the right proposal is a miss, whether the tree held other tokens there or none: pruning
    # must not look better than guessing. Beyond the draft's depth nothing is a miss.
    missed = (count > outcome.count) & (outcome.count < expansion.depth)
    statistics.add_proposals(states.slot[:, :-1], kept, kept + missed, active)
    return Accepted(outcome.path, outcome.emitted, states.slot, count)
