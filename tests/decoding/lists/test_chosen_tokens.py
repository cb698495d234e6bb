from typing import Any

import pytest
import torch

from padrec.catalog import CatalogTrie, SemanticIDVocabulary
from padrec.decoding import (
    CatalogConstraint,
    Constraint,
    FreeDecoding,
    ListRequest,
    ListState,
    Sampling,
    masked_log_softmax,
)
from padrec.decoding.lists import chosen_tokens
from padrec.decoding.lists.chosen_tokens import ChosenTokens, choose_tokens
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
        found = choose_tokens(logits, states, depths, choice, constraint)
        log_probs = masked_log_softmax(logits, constraint.allowed(states))
        assert found.tokens.tolist() == choice.scores(log_probs, depths).argmax(-1).tolist()
        assert torch.equal(found.log_probs, log_probs.gather(-1, found.tokens[..., None])[..., 0])
        assert (found.log_probs > -torch.inf).all()
        behind = constraint.advance(states, found.tokens)
        assert all(torch.equal(getattr(found.states, name), value) for name, value in vars(behind).items())


class OnGPU(torch.Tensor):
    """Says that it is on a GPU."""

    is_cuda = True


class Lenient(CatalogConstraint):
    """Allows what its catalog does not."""

    def allowed(self, state: ListState) -> None:  # type: ignore[override]
        return None


def chosen_by(
    constraint: Constraint[Any], sampling: Sampling, logits: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> object:
    """Who chooses: the kernel, or plain PyTorch."""
    of_kernel: Any = ("kernel", None, None)
    plain: Any = ("plain", None, None)
    monkeypatch.setattr(chosen_tokens, "choose_in_catalog", lambda *given: of_kernel, raising=False)
    monkeypatch.setattr(chosen_tokens, "_choose_tokens", lambda *given: ChosenTokens(*plain))
    zeros = torch.zeros(1, 1, dtype=torch.long)
    choice = sampling.choice(zeros[0], zeros[0], 0, _VOCABULARY.size)
    return choose_tokens(logits, nodes_of(constraint, 1, []), zeros, choice, constraint).tokens


@pytest.mark.parametrize(
    ("sampling", "dtype", "expected"),
    [
        (Sampling(), torch.bfloat16, "kernel"),
        (Sampling(0.7), torch.float32, "kernel"),
        (Sampling(0.0, top_k=2, top_p=0.5), torch.float32, "kernel"),
        (Sampling(0.7, top_k=2), torch.float32, "plain"),
        (Sampling(0.7, top_p=0.5), torch.float32, "plain"),
        (Sampling(), torch.float64, "plain"),
    ],
    ids=str,
)
def test_on_a_gpu_a_kernel_chooses_in_a_catalog(
    sampling: Sampling, dtype: torch.dtype, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.zeros(1, 1, _VOCABULARY.size, dtype=dtype)
    on_gpu = logits.as_subclass(OnGPU)
    assert chosen_by(_REQUEST.constraint, sampling, on_gpu, monkeypatch) == expected
    assert chosen_by(_REQUEST.constraint, sampling, logits, monkeypatch) == "plain"
    assert chosen_by(FreeDecoding(_VOCABULARY), sampling, on_gpu, monkeypatch) == "plain"
    lenient = Lenient(CatalogTrie(_REQUEST.catalog, _VOCABULARY), _VOCABULARY, 3)
    assert chosen_by(lenient, sampling, on_gpu, monkeypatch) == "plain"
