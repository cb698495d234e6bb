"""What becomes of a round: the path that the target keeps, the lists behind it, what was proposed for it."""

from dataclasses import dataclass, fields
from importlib.util import find_spec

import torch
from torch import Tensor

from padrec.decoding.device.compiled import compiled
from padrec.decoding.lists.chosen_tokens import ChosenTokens
from padrec.decoding.lists.constraint import ListState
from padrec.decoding.lists.recommendations import RoundStatistics
from padrec.decoding.lists.token_tree import MOST_NODES_OF_KERNELS, TokenTree
from padrec.decoding.lists.verification import verify
from padrec.decoding.rounds.list_buffer import ListBuffer
from padrec.decoding.trees.draft import Observation, TreeExpansion

# Triton comes with PyTorch's GPU builds only.
if find_spec("triton") is not None:
    from padrec.decoding.rounds.triton_settling import settle_in_kernel


@dataclass(frozen=True)
class Settled:
    """What the target kept of a tree.

    Attributes:
        path: nodes kept, the root first, int64 `[B, D + 1]`; see `Acceptance`.
        emitted: the target's tokens behind them, int64 `[B, D + 1]`.
        slots: of those, int64 `[B, D + 1]`.
        count: tokens written to the lists, int64 `[B]`; entries behind so many are arbitrary.
    """

    path: Tensor
    emitted: Tensor
    slots: Tensor
    count: Tensor

    def observation(self, features: Tensor) -> Observation:
        """What a draft learns, from the target's features of all nodes, `[B, N, d]`."""
        return Observation(features, self.path, self.emitted, self.slots, self.count)


def settle(
    tree: TokenTree, chosen: ChosenTokens, lists: ListBuffer, statistics: RoundStatistics, expansion: TreeExpansion
) -> Settled:
    """Add what the target keeps of a tree to the lists, and count it.

    Args:
        tree: the proposals.
        chosen: the target's choice at every node.
        lists: written to.
        statistics: counted in.
        expansion: how the tree was made.
    """
    if (
        tree.tokens.is_cuda
        and tree.tokens.shape[1] <= MOST_NODES_OF_KERNELS
        and chosen.log_probs.dtype == torch.float32
        and {field.name for field in fields(chosen.states)} in _STATES_OF_KERNELS
    ):
        return Settled(*settle_in_kernel(tree, chosen, lists, statistics, expansion.depth, expansion.draft_passes))
    return _settle(chosen.tokens, chosen.log_probs, chosen.states, tree, lists, statistics, expansion)


# What the kernel takes over of list states: of those in a catalog, or of slots alone.
_STATES_OF_KERNELS = ({"slot", "node", "used", "count"}, {"slot"})


@compiled
def _settle(
    tokens: Tensor,
    log_probs: Tensor,
    states: ListState,
    tree: TokenTree,
    lists: ListBuffer,
    statistics: RoundStatistics,
    expansion: TreeExpansion,
) -> Settled:
    active = ~lists.finished
    statistics.add_round(active, expansion.draft_passes)
    if tree.max_depth == 0:
        return Settled(tree.parents, tokens, states.slot, lists.extend(tokens, log_probs, states))
    outcome = verify(tree, tokens)
    count = lists.append(outcome.emitted, log_probs.gather(1, outcome.path), outcome.count + 1)
    # Move the lists behind their new last token.
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
    return Settled(outcome.path, outcome.emitted, states.slot, count)
