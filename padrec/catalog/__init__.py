"""Items, their semantic IDs and the tokens that stand for them."""

from typing import TYPE_CHECKING

from padrec.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from padrec.catalog.catalog import Catalog as Catalog
    from padrec.catalog.errors import InputError as InputError
    from padrec.catalog.trie import CatalogTrie as CatalogTrie
    from padrec.catalog.vocabulary import SemanticIDVocabulary as SemanticIDVocabulary
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
