"""Lists of items, as a decode returns them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from padrec.catalog import Catalog, SemanticIDVocabulary


@dataclass(frozen=True)
class Recommendations:
    """One list for each row.

    Attributes:
        leaves: generated items in list order, int64 `[B, K]` on the CPU: leaves of the catalog, -1 where the tokens
            are no item.
        tokens: generated tokens, int64 `[B, T]`, padding behind the end.
        log_probs: of each generated token under the target's constrained distribution (temperature 1), `[B, T]`; of
            items that a beam search ranked, what it adds up (see `BeamDecoder`), and 0 at their separators.
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
        """Write items of the catalog as the tokens of a list.

        Args:
            leaves: int64 `[B, K]`.
            log_probs: of their codes, `[B, K, L]`.
            catalog: the items.
            vocabulary: their tokens.
        """
        length = vocabulary.list_tokens(leaves.shape[1])
        leaves = leaves.cpu()
        tokens = vocabulary.encode(catalog.leaf_codes[leaves]).flatten(1)[:, :length]
        padded = torch.nn.functional.pad(log_probs, (0, vocabulary.item_length - vocabulary.n_slots))
        return cls(leaves, tokens.to(log_probs.device), padded.flatten(1)[:, :length])

    @classmethod
    def joined(cls, parts: "Sequence[Recommendations]") -> "Recommendations":
        """The lists of several batches of the same request, one batch behind the other."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in ("leaves", "tokens", "log_probs")))

    def cpu(self) -> "Recommendations":
        """The same with all tensors on the CPU."""
        return Recommendations(self.leaves, self.tokens.cpu(), self.log_probs.cpu())
