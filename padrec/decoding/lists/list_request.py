"""Requests for lists of a catalog's items."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from padrec.catalog import Catalog, CatalogTrie, InputError, SemanticIDVocabulary
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.constraint import Constraint, FreeDecoding
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.recommendations import Recommendations
from padrec.decoding.lists.sampling import Sampling


@dataclass(frozen=True, eq=False)
class ListRequest:
    """Asks for a list of K items for every prompt; see `Request`.

    Attributes:
        catalog: the items.
        vocabulary: the target's tokens.
        list_length: K, items in a list.
        constraint: which tokens are allowed.
        sampling: the sampling rule.
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
        """Make a request with its constraint on a device.

        Raises:
            InputError: K is below 1, or constrained and above the catalog's leaves.
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

    @property
    def vocabulary_size(self) -> int:
        """V, tokens of the target."""
        return self.vocabulary.size

    @property
    def n_slot_states(self) -> int:
        """L + 2: an item's slots, the separator's, and that of all other tokens."""
        return self.vocabulary.n_slot_states

    @property
    def pad_token(self) -> int:
        """Fills lists that end early."""
        return self.vocabulary.pad_token

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """`<eos>`, which may end an unconstrained list."""
        return (self.vocabulary.eos_token,)

    def result(self, tokens: Tensor, log_probs: Tensor) -> Recommendations:
        """Look up the items; see `Request.result`."""
        return Recommendations.from_tokens(tokens, log_probs, self.catalog, self.vocabulary, self.list_length)
