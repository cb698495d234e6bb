"""Lists of a catalog as a request."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from padrec.catalog import Catalog, CatalogTrie, InputError, SemanticIDVocabulary
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.lists.constraint import Constraint
from padrec.decoding.lists.free_decoding import FreeDecoding
from padrec.decoding.lists.list_state import ListState
from padrec.decoding.lists.recommendations import Recommendations
from padrec.decoding.lists.sampling import Sampling


@dataclass(frozen=True, eq=False)
class ListRequest:
    """A list of K items for every prompt of a batch; see `Request`.

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

    @property
    def vocabulary_size(self) -> int:
        """V, tokens of the target."""
        return self.vocabulary.size

    @property
    def n_slot_states(self) -> int:
        """L + 2: the slots of an item, the separator's, and that of all other tokens."""
        return self.vocabulary.n_slot_states

    @property
    def pad_token(self) -> int:
        """What fills up lists that end early."""
        return self.vocabulary.pad_token

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """`<eos>`, with which a list that nothing constrains may end."""
        return (self.vocabulary.eos_token,)

    def excluding(self, batch: int) -> "ListRequest":
        """See `Request.excluding`."""
        if not isinstance(self.constraint, CatalogConstraint):
            raise InputError("items to exclude without a constraint: expected constraint: catalog, which excludes them")
        return replace(self, constraint=self.constraint.excluding(batch))

    def result(self, tokens: Tensor, log_probs: Tensor) -> Recommendations:
        """The items that the tokens stand for; see `Request.result`."""
        return Recommendations.from_tokens(tokens, log_probs, self.catalog, self.vocabulary, self.list_length)
