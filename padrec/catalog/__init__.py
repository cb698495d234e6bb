"""Items, their semantic IDs and the tokens that stand for them."""

from padrec.catalog.catalog import Catalog
from padrec.catalog.errors import InputError
from padrec.catalog.item_embeddings import ConcatenatedEmbeddings, EmbeddingFile, EmbeddingSource, ItemEmbeddings
from padrec.catalog.principal_components import PrincipalComponents
from padrec.catalog.trie import CatalogTrie
from padrec.catalog.vocabulary import SemanticIDVocabulary

__all__ = [
    "Catalog",
    "CatalogTrie",
    "ConcatenatedEmbeddings",
    "EmbeddingFile",
    "EmbeddingSource",
    "InputError",
    "ItemEmbeddings",
    "PrincipalComponents",
    "SemanticIDVocabulary",
]
