"""The operations of a round, last part: acceptance."""

import torch
from torch import Tensor

from padrec.decoding.device.compiled import compiled
from padrec.decoding.lists.accepted_path import accept
from padrec.decoding.lists.chosen_tokens import ChosenTokens
from padrec.decoding.lists.decoding_trace import RoundStatistics
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.rounds.accepted import Accepted
from padrec.decoding.rounds.list_buffer import ListBuffer
from padrec.decoding.trees.tree_expansion import TreeExpansion
from padrec.decoding.trees.tree_operations import TreeOperations


class RoundOperations(TreeOperations):
    """All that a round computes beside the passes of target and draft, in plain PyTorch; see `ListOperations`."""

    def accept(
        self,
        tree: TokenTree,
        chosen: ChosenTokens,
        lists: ListBuffer,
        statistics: RoundStatistics,
        expansion: TreeExpansion,
    ) -> Accepted:
        """Add the tokens that a round emits to the lists, and count them.

        Args:
            tree: the proposals.
            chosen: the token after every node, by the verification rule.
            lists: written to.
            statistics: counted in.
            expansion: how the tree was made.
        """
        return _accept(chosen.tokens, chosen.log_probs, chosen.states, tree, lists, statistics, expansion)


@compiled
def _accept(
    tokens: Tensor,
    log_probs: Tensor,
    states: ListState,
    tree: TokenTree,
    lists: ListBuffer,
    statistics: RoundStatistics,
    expansion: TreeExpansion,
) -> Accepted:
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
