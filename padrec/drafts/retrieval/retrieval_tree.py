"""Trees of what was retrieved, without logits over the vocabulary."""

from typing import Annotated

import torch
from torch import Tensor

from padrec.catalog import InputError, PositiveFloat, PositiveInt, Range, check_arguments
from padrec.decoding.device.compiled import compiled
from padrec.decoding.lists.constraint import Constraint
from padrec.decoding.lists.list_state import ListState, concatenate
from padrec.decoding.lists.sampling import Choice, Guess
from padrec.decoding.lists.token_tree import TokenTree
from padrec.decoding.trees.tree_expansion import DraftSteps, TreeExpansion, check_size
from padrec.decoding.trees.tree_operations import TreeOperations
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

    def expand(
        self,
        root: Tensor,
        state: ListState,
        constraint: Constraint[ListState],
        choice: Choice,
        steps: DraftSteps,
        operations: TreeOperations,
    ) -> TokenTree:
        """See `TreeExpansion.expand`."""
        if not isinstance(steps, RetrievalSession):
            raise InputError(
                f"RetrievalTree with a {type(steps).__name__}: expected a RetrievalDraft, and no other draft"
            )
        tokens, votes = steps.retrieve()
        guess = Guess.of(choice.sampling, self.greedy_temperature)
        unseen, tokens = steps.unseen, tokens[..., : self.depth]
        return _grow(tokens, votes, root, state, constraint, guess, choice.noise, unseen, self.nodes)


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
    number = torch.arange(n_places, device=following.device)
    above = state.unsqueeze().gather(torch.zeros_like(following[..., 0], dtype=torch.long))  # [B, C]
    agree = (votes[:, None] > 0) & (votes[..., None] > 0)  # [B, C, C], whether two places share the path so far
    score = torch.zeros_like(votes).masked_fill(votes <= 0, -torch.inf)
    first = torch.zeros_like(number).expand(votes.shape)
    tokens, scores, parents, states = [root[:, None]], [torch.zeros_like(votes[:, :1])], [], [state.unsqueeze()]
    for depth in range(max_depth):
        token = following[..., depth]
        asked = token.clamp(min=0).long()
        is_possible = (token != END) & _is_allowed(asked, above, constraint)
        same = agree & (token[:, None] == token[..., None]) & is_possible[:, None] & is_possible[..., None]
        share = (same * votes[:, None]).sum(2) / ((agree * votes[:, None]).sum(2) + unseen)
        leader = same.int().argmax(2)  # the first place of each node
        is_node = (leader == number) & is_possible
        chance = _log_chances(share, is_node, agree, asked, guess, None if noise is None else noise[:, depth])
        score = torch.where(is_possible, score + chance, -torch.inf)
        after = constraint.advance(above, asked)
        tokens.append(asked)
        scores.append(torch.where(is_node, score, -torch.inf))
        # The root is node 0; places of depth d follow those of depth d - 1.
        parents.append(first if depth == 0 else 1 + (depth - 1) * n_places + first)
        states.append(after)
        above, agree, first = after, same, leader
    every = torch.cat(scores, 1)  # [B, 1 + D * C]
    # A child scores no more than its parent and comes later, so a stable sort keeps the parents of what it keeps.
    kept = every.sort(dim=1, descending=True, stable=True).indices[:, :n_nodes].sort(1).values
    present = every.gather(1, kept) > -torch.inf
    above_kept = torch.cat([torch.zeros_like(root)[:, None], *parents], 1).gather(1, kept)
    place = torch.searchsorted(kept, above_kept.contiguous())
    return TokenTree.from_parents(
        torch.cat(tokens, 1).gather(1, kept),
        torch.where(present, place, 0),
        concatenate(states).gather(kept),
        max_depth,
        every.gather(1, kept),
        present,
    )


def _is_allowed(tokens: Tensor, states: ListState, constraint: Constraint[ListState]) -> Tensor:
    """Whether each token may follow its state, bool `[B, C]`."""
    continuations = constraint.continuations(states)
    if continuations is None:
        return torch.ones_like(tokens, dtype=torch.bool)
    return ((continuations.tokens == tokens[..., None]) & continuations.free).any(-1)


def _log_chances(
    share: Tensor, is_node: Tensor, agree: Tensor, tokens: Tensor, guess: Guess, noise: Tensor | None
) -> Tensor:
    """Log-probabilities that the target chooses the tokens of the places, from their shares of the votes, `[B, C]`.

    As `Guess.log_chances`, over the tokens that have votes and all others together, whose noise is not looked at.
    """
    weight = guess.logit_scale * share.log()
    if noise is not None:
        weight = weight + guess.noise_scale * noise.gather(1, tokens)
    siblings = torch.where(agree & is_node[:, None], weight[:, None], -torch.inf).logsumexp(2)
    known = torch.where(agree & is_node[:, None], share[:, None], 0).sum(2)
    others = guess.logit_scale * (1 - known).clamp(min=_LEAST).log()
    return (weight - torch.logaddexp(siblings, others)).nan_to_num(-torch.inf, neginf=-torch.inf).clamp(max=0)
