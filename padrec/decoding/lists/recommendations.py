"""The lists of items that a decode returns."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.catalog import Catalog, SemanticIDVocabulary


@dataclass(frozen=True)
class Recommendations:
    """One list for each row.

    Attributes:
        leaves: the catalog's leaves in list order, int64 `[B, K]` on the CPU; -1 if the tokens are not an item.
        tokens: generated tokens, int64 `[B, T]`, padded after the end.
        log_probs: the tokens' under the target's constrained distribution at temperature 1, `[B, T]`. After a beam
            search: what it adds up (see `BeamDecoder`), 0 for separators.
    """

    leaves: Tensor
    tokens: Tensor
    log_probs: Tensor

    @classmethod
    def from_tokens(
        cls, tokens: Tensor, log_probs: Tensor, catalog: Catalog, vocabulary: SemanticIDVocabulary, list_length: int
    ) -> "Recommendations":
        """Look up the generated tokens in the catalog."""
        codes = vocabulary.parse_lists(tokens.cpu(), list_length)
        return cls(leaves=catalog.leaf_of_codes(codes), tokens=tokens, log_probs=log_probs)

    @classmethod
    def from_leaves(
        cls, leaves: Tensor, log_probs: Tensor, catalog: Catalog, vocabulary: SemanticIDVocabulary
    ) -> "Recommendations":
        """Write items as the tokens of a list.

        Args:
            leaves: int64 `[B, K]`.
            log_probs: of the items' codes, `[B, K, L]`.
            catalog: the items.
            vocabulary: the target's tokens.
        """
        length = vocabulary.list_tokens(leaves.shape[1])
        leaves = leaves.cpu()
        tokens = vocabulary.encode(catalog.leaf_codes[leaves]).flatten(1)[:, :length]
        padded = torch.nn.functional.pad(log_probs, (0, vocabulary.item_length - vocabulary.n_slots))
        return cls(leaves, tokens.to(log_probs.device), padded.flatten(1)[:, :length])

    @classmethod
    def joined(cls, parts: "Sequence[Recommendations]") -> "Recommendations":
        """Join the lists of several batches of one request."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in ("leaves", "tokens", "log_probs")))

    def cpu(self) -> "Recommendations":
        """Move all tensors to the CPU."""
        return Recommendations(self.leaves, self.tokens.cpu(), self.log_probs.cpu())
