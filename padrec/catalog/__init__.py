"""Items, their semantic IDs and the tokens that stand for them."""

from padrec.catalog.catalog import Catalog
from padrec.catalog.errors import InputError
from padrec.catalog.trie import CatalogTrie
from padrec.catalog.vocabulary import SemanticIDVocabulary

__all__ = [
    "Catalog",
    "CatalogTrie",
    "InputError",
    "SemanticIDVocabulary",
]
