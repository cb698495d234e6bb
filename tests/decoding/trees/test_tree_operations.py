from typing import Any

import pytest
import torch

from padrec.catalog import CatalogTrie, SemanticIDVocabulary
from padrec.decoding import CatalogConstraint, CatalogState, Constraint, FreeDecoding
from padrec.decoding.lists.constraint import Unconstrained
from padrec.decoding.trees.tree_operations import TreeOperations, tree_operations_for
from tests.stubs import random_catalog

_SIZES = (3, 4)


class Lenient(CatalogConstraint):
    """Allows what its catalog does not."""

    def allowed(self, state: CatalogState) -> None:  # type: ignore[override]
        return None


@pytest.mark.parametrize(
    ("device", "dtype", "expected"),
    [("cuda", torch.bfloat16, True), ("cuda", torch.float64, False), ("cpu", torch.float32, False)],
)
def test_kernels_grow_trees_where_the_device_has_them_and_they_know_the_constraint(
    device: str, dtype: torch.dtype, expected: bool
) -> None:
    pytest.importorskip("triton")
    vocabulary = SemanticIDVocabulary(_SIZES)
    trie = CatalogTrie(random_catalog(_SIZES, 9), vocabulary)

    def by_kernels(constraint: Constraint[Any]) -> bool:
        return type(tree_operations_for(torch.device(device), dtype, constraint)) is not TreeOperations

    assert by_kernels(CatalogConstraint(trie, vocabulary, 3)) == by_kernels(FreeDecoding(vocabulary)) == expected
    assert not by_kernels(Lenient(trie, vocabulary, 3))
    assert not by_kernels(Unconstrained())
