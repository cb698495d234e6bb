from typing import Any

import pytest
import torch

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import (
    Constraint,
    FreeDecoding,
    ListRequest,
    ListState,
    Sampling,
    choose,
    masked_log_softmax,
)
from tests.stubs import random_catalog

_SIZES = (3, 4)
_VOCABULARY = SemanticIDVocabulary(_SIZES)
_REQUEST = ListRequest.build(random_catalog(_SIZES, 9), _VOCABULARY, 3)


def nodes_of(constraint: Constraint[Any], batch: int, path: list[int]) -> ListState:
    """States `[batch, 1]` behind some tokens."""
    states: ListState = constraint.initial(batch, torch.device("cpu")).unsqueeze()
    for token in path:
        states = constraint.advance(states, torch.full((batch, 1), token))
    return states


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7), Sampling(1.0, top_k=2)], ids=str)
@pytest.mark.parametrize("constraint", [_REQUEST.constraint, FreeDecoding(_VOCABULARY)], ids=["catalog", "free"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_the_best_allowed_token_is_chosen_and_the_state_moves_behind_it(
    dtype: torch.dtype, constraint: Constraint[Any], sampling: Sampling
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 1, _VOCABULARY.size, generator=generator).to(dtype)
    item = _VOCABULARY.encode(_REQUEST.catalog.leaf_codes[0])[:2].tolist()
    keys, depths = torch.tensor([3, 4]), torch.zeros(2, 1, dtype=torch.long)
    for path in ([], item[:1], item):
        states = nodes_of(constraint, 2, path)
        choice = sampling.choice(keys, torch.full((2,), len(path)), 0, _VOCABULARY.size)
        found = choose(logits, states, depths, choice, constraint)
        log_probs = masked_log_softmax(logits, constraint.allowed(states))
        assert found.tokens.tolist() == choice.scores(log_probs, depths).argmax(-1).tolist()
        assert torch.equal(found.log_probs, log_probs.gather(-1, found.tokens[..., None])[..., 0])
        assert (found.log_probs > -torch.inf).all()
        behind = constraint.advance(states, found.tokens)
        assert all(torch.equal(getattr(found.states, name), value) for name, value in vars(behind).items())
