"""What a decode is asked for."""

from dataclasses import dataclass, field

import torch

from padrec.catalog import Catalog, CatalogTrie, InputError, SemanticIDVocabulary
from padrec.decoding.lists.constraint import CatalogConstraint, Constraint, FreeDecoding, ListState
from padrec.decoding.lists.sampling import Sampling


@dataclass(frozen=True, eq=False)
class ListRequest:
    """What to generate for every prompt of a batch; equal to itself alone.

    Attributes:
        catalog: the items.
        vocabulary: their tokens.
        list_length: K, items in a list.
        constraint: what a list may continue with.
        sampling: how tokens are chosen.
    """

    catalog: Catalog
    vocabulary: SemanticIDVocabulary
    list_length: int
    constraint: Constraint[ListState]
    sampling: Sampling = field(default_factory=Sampling)

    @classmethod
    def build(
        cls,
        catalog: Catalog,
        vocabulary: SemanticIDVocabulary,
        list_length: int,
        *,
        constrained: bool = True,
        sampling: Sampling | None = None,
        device: torch.device | str = "cpu",
    ) -> "ListRequest":
        """Make the constraint for a catalog on a device.

        Raises:
            InputError: K is less than 1, or more than the catalog's leaves where lists are constrained.
        """
        if list_length < 1:
            raise InputError(f"list_length {list_length}: expected at least 1 item in a list")
        constraint: Constraint[ListState]
        if constrained:
            trie = CatalogTrie(catalog, vocabulary).to(device)
            constraint = CatalogConstraint(trie, vocabulary, list_length)  # type: ignore[assignment]
        else:
            constraint = FreeDecoding(vocabulary)
        return cls(catalog, vocabulary, list_length, constraint, sampling or Sampling())

    @property
    def n_tokens(self) -> int:
        """T, tokens in a list."""
        return self.vocabulary.list_tokens(self.list_length)
