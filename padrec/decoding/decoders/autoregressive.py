"""The reference: one target pass for each token."""

from padrec.decoding.decoders.speculative import SpeculativeDecoder
from padrec.decoding.trees.draft import CatalogDraft
from padrec.decoding.trees.tree_expansion import RootOnly


class AutoregressiveDecoder(SpeculativeDecoder):
    """Generates token by token, which is speculation that proposes nothing; lossless decoders write what it writes.

    Args:
        forced_tokens: give no target pass of its own to a token that the constraint forces. A pass then reads the last
            token together with the forced ones after it.
    """

    def __init__(self, forced_tokens: bool = False) -> None:
        super().__init__(CatalogDraft(), RootOnly(), forced_tokens)
