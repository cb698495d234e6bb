from typing import Any

import pytest
import torch

from padrec.catalog import Catalog, InputError, SemanticIDVocabulary
from padrec.decoding import CatalogConstraint, FreeDecoding, ListBuffer, ListRequest, Recommendations, Sampling

_CATALOG = Catalog(torch.tensor([[0, 0], [0, 1], [1, 1], [1, 1]]), ["a", "b", "c", "d"])
_VOCABULARY = SemanticIDVocabulary([2, 2])


def test_a_request_is_constrained_unless_told_otherwise() -> None:
    request = ListRequest.build(_CATALOG, _VOCABULARY, 3)
    constraint: Any = request.constraint
    assert isinstance(constraint, CatalogConstraint)
    assert request.sampling == Sampling(temperature=0.0)
    assert request.n_tokens == 8
    constraint = ListRequest.build(_CATALOG, _VOCABULARY, 9, constrained=False).constraint
    assert isinstance(constraint, FreeDecoding)


def test_lists_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match=r"^ListRequest: list_length is 0, expected at least 1$"):
        ListRequest.build(_CATALOG, _VOCABULARY, 0, constrained=False)
    with pytest.raises(InputError, match=r"^lists of 4 distinct items: the catalog has 3 distinct semantic IDs$"):
        ListRequest.build(_CATALOG, _VOCABULARY, 4)


def test_generated_tokens_are_looked_up_in_the_catalog() -> None:
    sep = _VOCABULARY.separator_token
    tokens = torch.tensor([[5, 7, sep, 4, 6, sep, 5, 6], [4, 7, sep, 7, 4, sep, 5, 7], [4, 6, 2, 0, 0, 0, 0, 0]])
    lists = Recommendations.from_tokens(tokens, torch.zeros(3, 8), _CATALOG, _VOCABULARY, 3)
    assert lists.leaves.tolist() == [[2, 0, -1], [1, -1, 2], [0, -1, -1]]
    assert lists.tokens is tokens


def buffer_of(n_rows: int, first: int) -> ListBuffer:
    """Lists of 8 tokens with this first one."""
    request = ListRequest.build(_CATALOG, _VOCABULARY, 3, constrained=False)
    logits = torch.zeros(n_rows, _VOCABULARY.size)
    logits[:, first] = 9
    lists = ListBuffer(request, n_rows, torch.device("cpu"))
    lists.begin(logits, torch.zeros(n_rows, dtype=torch.long))
    return lists


def test_tokens_are_written_up_to_the_end_of_each_list() -> None:
    lists = buffer_of(3, first=4)
    rounds = [
        # tokens, how many of them count, how many are written
        ([[6, 3, 5], [6, 2, 5], [6, 3, 5]], [3, 3, 1], [3, 2, 1]),
        ([[7, 3, 4], [7, 3, 4], [3, 5, 7]], [2, 3, 3], [2, 0, 3]),
        ([[4, 7, 6], [4, 7, 6], [3, 2, 2]], [3, 1, 3], [2, 0, 2]),
    ]
    for tokens, count, written in rounds:
        log_probs = -torch.tensor(tokens).double()
        assert lists.append(torch.tensor(tokens), log_probs, torch.tensor(count)).tolist() == written
    assert lists.finished.tolist() == [True, True, True]
    assert lists.lengths.tolist() == [8, 3, 7]
    found = lists.request.result(lists.tokens, lists.log_probs)
    assert found.tokens.tolist() == [[4, 6, 3, 5, 7, 3, 4, 7], [4, 6, 2, 0, 0, 0, 0, 0], [4, 6, 3, 5, 7, 3, 2, 0]]
    assert found.log_probs[:, 1:].tolist() == [[-float(token) for token in row[1:]] for row in found.tokens.tolist()]
    assert found.leaves.tolist() == [[0, 2, 1], [0, -1, -1], [0, 2, -1]]


def test_an_end_token_at_once_ends_the_list() -> None:
    lists = buffer_of(1, first=_VOCABULARY.eos_token)
    assert (lists.finished.tolist(), lists.lengths.tolist()) == ([True], [1])
