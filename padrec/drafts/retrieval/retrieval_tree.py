"""Trees of what was retrieved, without logits over the vocabulary."""

from itertools import accumulate
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional

from padrec.catalog import InputError, PositiveFloat, PositiveInt, Range, check_arguments
from padrec.decoding.device.compiled import compiled
from padrec.decoding.lists.constraint import Constraint
from padrec.decoding.lists.list_state import ListState, concatenate
from padrec.decoding.lists.sampling import Guess
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.trees.tree_expansion import TreeContext, TreeExpansion, check_size
from padrec.drafts.retrieval.retrieval_draft import RetrievalSession
from padrec.drafts.retrieval.token_pool import END

_LEAST = 1e-6  # share of what nobody voted for


class RetrievalTree(TreeExpansion):
    """The most voted continuations of a `RetrievalDraft` as one tree.

    A node's score is the logarithm of its path's share of the votes at every node. `DynamicTree` grows nearly the same
    trees, from logits over the whole vocabulary at every depth; for the vocabulary of a language model they take many
    times as long as the look-up itself.

    Args:
        depth: D, the deepest proposal, at least 1.
        nodes: N, nodes of the tree, including the root, at least 2.
        greedy_temperature: see `DynamicTree`.

    Raises:
        InputError: a value below its minimum, a tree that is too large, or another draft than a `RetrievalDraft`.
    """

    draft_rows = 0
    draft_passes = 1

    def __init__(
        self,
        depth: PositiveInt = 10,
        nodes: Annotated[int, Range("at least 2", lambda nodes: nodes >= 2)] = 32,
        greedy_temperature: PositiveFloat = 1.0,
    ) -> None:
        check_arguments(RetrievalTree, locals())
        check_size(depth, nodes, nodes)
        self.depth, self.nodes, self.leaves = depth, nodes, nodes - 1
        self.greedy_temperature = greedy_temperature

    def expand(self, context: TreeContext) -> TokenTree:
        """See `TreeExpansion.expand`."""
        steps, choice = context.steps, context.choice
        if not isinstance(steps, RetrievalSession):
            raise InputError(
                f"RetrievalTree with a {type(steps).__name__}: expected a RetrievalDraft, and no other draft"
            )
        tokens, votes = steps.retrieve()
        guess = Guess.of(choice.sampling, self.greedy_temperature)
        tokens, after = tokens[..., : self.depth], (context.root, context.state, context.constraint)
        return _grow(tokens, votes, *after, guess, choice.noise, steps.unseen, self.nodes)


@compiled
def _grow(
    following: Tensor,
    votes: Tensor,
    root: Tensor,
    state: ListState,
    constraint: Constraint[ListState],
    guess: Guess,
    noise: Tensor | None,
    unseen: float,
    n_nodes: int,
) -> TokenTree:
    """The tree of the best nodes; places `[B, C, D]` with votes `[B, C]` that agree on a path share its nodes."""
    n_places, max_depth = following.shape[1:]
    number, depth = (torch.arange(n, device=following.device) for n in (n_places, max_depth))
    asked = following.clamp(min=0).long()
    possible, states = _walked(following, asked, state, constraint)
    common = _common_depth(following, possible, votes)[..., None]
    agree, same = common >= depth, common > depth  # [B, C, C, D], whether two places share the path, without and with d
    counted = votes[:, None, :, None]
    share = (same * counted).sum(2) / ((agree * counted).sum(2) + unseen)  # [B, C, D]
    leader = same.int().argmax(2)  # the first place of each node
    is_node = (leader == number[:, None]) & possible
    chances = _log_chances(share, is_node, agree, asked, guess, noise)
    # Added one by one, so that rounding never puts a child before its parent.
    scores = torch.stack(list(accumulate(chances.unbind(2))), 1).masked_fill(~is_node.transpose(1, 2), -torch.inf)
    every = functional.pad(scores.flatten(1), (1, 0))  # [B, 1 + D C]; the root has 0
    tokens = torch.cat([root[:, None], asked.transpose(1, 2).flatten(1)], 1)  # [B, 1 + D C]
    # The root is node 0; places of depth d follow those of depth d - 1.
    above = 1 + (depth[:-1] * n_places)[:, None] + leader[..., :-1].transpose(1, 2)
    parents = functional.pad(above.flatten(1), (1 + n_places, 0))
    # A child scores no more than its parent and comes later, so a stable sort keeps the parents of what it keeps.
    kept = every.sort(dim=1, descending=True, stable=True).indices[:, :n_nodes].sort(1).values
    present = every.gather(1, kept) > -torch.inf
    place = torch.searchsorted(kept, parents.gather(1, kept))
    return TokenTree.from_parents(
        tokens.gather(1, kept),
        torch.where(present, place, 0),
        concatenate([state.unsqueeze(), *states]).gather(kept),
        max_depth,
        every.gather(1, kept),
        present,
    )


def _walked(
    following: Tensor, asked: Tensor, state: ListState, constraint: Constraint[ListState]
) -> tuple[Tensor, list[ListState]]:
    """Whether each token may follow its path, bool `[B, C, D]`, and the list states `[B, C]` after each of D tokens."""
    above = state.unsqueeze().gather(torch.zeros_like(asked[..., 0]))
    possible, states = [], []
    for tokens, written in zip(asked.unbind(2), (following != END).unbind(2), strict=True):
        possible.append(written & _is_allowed(tokens, above, constraint))
        above = constraint.advance(above, tokens)
        states.append(above)
    return torch.stack(possible, 2), states


def _is_allowed(tokens: Tensor, states: ListState, constraint: Constraint[ListState]) -> Tensor:
    """Whether each token may follow its state, bool `[B, C]`."""
    continuations = constraint.continuations(states)
    if continuations is None:
        return torch.ones_like(tokens, dtype=torch.bool)
    return ((continuations.tokens == tokens[..., None]) & continuations.free).any(-1)


def _common_depth(following: Tensor, possible: Tensor, votes: Tensor) -> Tensor:
    """How many tokens of a possible path two places share, `[B, C, C]`; -1 if one of them has no votes."""
    shared = (votes[:, None] > 0) & (votes[..., None] > 0)
    depth = shared.int() - 1
    for tokens, allowed in zip(following.unbind(2), possible.unbind(2), strict=True):
        shared = shared & (tokens[:, None] == tokens[..., None]) & allowed[..., None]
        depth = depth + shared.int()
    return depth


def _log_chances(
    share: Tensor, is_node: Tensor, agree: Tensor, tokens: Tensor, guess: Guess, noise: Tensor | None
) -> Tensor:
    """Log-probabilities that the target chooses the tokens of the places, from their shares of the votes, `[B, C, D]`.

    As `Guess.log_chances`, over the tokens that have votes and all others together, whose noise is not looked at.
    """
    weight = guess.logit_scale * share.log()
    if noise is not None:
        drawn = noise[:, : tokens.shape[2]].gather(2, tokens.transpose(1, 2)).transpose(1, 2)
        weight = weight + guess.noise_scale * drawn
    is_sibling = agree & is_node[:, None]  # [B, C, C, D]
    siblings = torch.where(is_sibling, weight[:, None], -torch.inf).logsumexp(2)
    known = torch.where(is_sibling, share[:, None], 0).sum(2)
    others = guess.logit_scale * (1 - known).clamp(min=_LEAST).log()
    return (weight - torch.logaddexp(siblings, others)).nan_to_num(-torch.inf, neginf=-torch.inf).clamp(max=0)
