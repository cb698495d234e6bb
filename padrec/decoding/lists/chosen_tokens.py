"""What the target chooses at every node of a tree."""

from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from padrec.decoding.device.compiled import compiled
from padrec.decoding.lists.constraint import CatalogConstraint, Constraint, ListState, is_plain
from padrec.decoding.lists.sampling import Choice, masked_log_softmax
from padrec.decoding.lists.top_k import fits_a_row

# Triton comes with PyTorch's GPU builds only.
if find_spec("triton") is not None:
    from padrec.decoding.lists.triton_choice import choose_in_catalog


@dataclass(frozen=True)
class ChosenTokens:
    """The target's choices; where nothing is allowed, as behind the end of a list, they are any of the vocabulary.

    Attributes:
        tokens: int64 `[B, N]`.
        log_probs: of those among all that are allowed, at temperature 1, float32 `[B, N]` (float64 for float64 logits).
        states: list states behind them, `[B, N]`.
    """

    tokens: Tensor
    log_probs: Tensor
    states: ListState


def choose_tokens(
    logits: Tensor, states: ListState, depths: Tensor, choice: Choice, constraint: Constraint[ListState]
) -> ChosenTokens:
    """The target's token at every node, a function of the node's logits, list state and noise alone.

    Every lossless decoder chooses by it. Where a kernel chooses does not depend on how many nodes there are, so that
    one list is chosen in one way.

    Args:
        logits: of the target, `[B, N, V]`.
        states: list states at the nodes, `[B, N]`.
        depths: of the nodes, int64 `[B, N]`.
        choice: what decides the tokens of this round.
        constraint: what lists may continue with.
    """
    if (
        logits.is_cuda
        and logits.dtype != torch.float64
        and not choice.cuts_off
        and is_plain(constraint, CatalogConstraint, "continuations", "allowed", "advance")
        and fits_a_row(constraint.trie.max_children, 1)
    ):
        tokens, log_probs, behind = choose_in_catalog(logits, states, depths, choice, constraint)
        return ChosenTokens(tokens, log_probs, behind)
    return _choose_tokens(logits, states, depths, choice, constraint)


@compiled
def _choose_tokens(
    logits: Tensor, states: ListState, depths: Tensor, choice: Choice, constraint: Constraint[ListState]
) -> ChosenTokens:
    log_probs = masked_log_softmax(logits, constraint.allowed(states))
    tokens = choice.choose(log_probs, depths)
    return ChosenTokens(tokens, log_probs.gather(-1, tokens[..., None])[..., 0], constraint.advance(states, tokens))
