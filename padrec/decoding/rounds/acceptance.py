"""Acceptance: the path of a tree that a round keeps, and the lists after it."""

import torch
from torch import Tensor

from padrec.decoding.device.compiled import compiled
from padrec.decoding.lists.decoding_trace import RoundStatistics
from padrec.decoding.lists.sampling import Choice
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.lists.verification import VerificationRule, accept
from padrec.decoding.rounds.list_buffer import ListBuffer
from padrec.decoding.trees.draft import Accepted
from padrec.decoding.trees.tree_expansion import TreeExpansion


@compiled
def verify_round(
    logits: Tensor,
    tree: TokenTree,
    choice: Choice,
    rule: VerificationRule,
    lists: ListBuffer,
    statistics: RoundStatistics,
    expansion: TreeExpansion,
) -> Accepted:
    """Append the tokens that a round emits to the lists, and count them.

    One function, so that on a GPU the compiler fuses the rule with what follows: fewer launches after every pass.
    `logits`, `[B, N, V]`, are the target's at every node of the tree, which the expansion grew.
    """
    chosen = rule.emit(tree, logits, choice, lists.request.constraint)
    active = ~lists.finished
    statistics.add_round(active, expansion.draft_passes)
    if tree.max_depth == 0:
        return Accepted(tree.parents, chosen.tokens, chosen.states.slot, lists.extend(chosen))
    outcome = accept(tree, chosen.tokens)
    count = lists.append(outcome.emitted, chosen.log_probs.gather(1, outcome.path), outcome.count + 1)
    states = chosen.states.gather(outcome.path)
    last = (count - 1).clamp(min=0)[:, None]
    lists.last.copy_(torch.where(count > 0, outcome.emitted.gather(1, last)[:, 0], lists.last))
    # Finished rows are never read again, so their states may be anything.
    lists.state.copy_(states.gather(last).squeeze())
    kept = torch.minimum(outcome.count, count)
    # The first depth without the right proposal is a miss, whether the tree held other tokens there or none: pruning
    # must not look better than guessing. Beyond the draft's reach nothing is a miss.
    missed = (count > outcome.count) & (outcome.count < expansion.reach(tree.states.slot[:, 0]))
    statistics.add_proposals(states.slot[:, :-1], kept, kept + missed, active)
    return Accepted(outcome.path, outcome.emitted, states.slot, count)
