"""Items, their semantic IDs and the tokens that stand for them."""

from typing import TYPE_CHECKING

from padrec.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from padrec.catalog.arguments import ClosedUnitInterval as ClosedUnitInterval
    from padrec.catalog.arguments import CodebookSize as CodebookSize
    from padrec.catalog.arguments import NonNegativeFloat as NonNegativeFloat
    from padrec.catalog.arguments import NonNegativeInt as NonNegativeInt
    from padrec.catalog.arguments import NonZeroShare as NonZeroShare
    from padrec.catalog.arguments import PositiveFloat as PositiveFloat
    from padrec.catalog.arguments import PositiveInt as PositiveInt
    from padrec.catalog.arguments import ProperShare as ProperShare
    from padrec.catalog.arguments import Range as Range
    from padrec.catalog.arguments import Seed as Seed
    from padrec.catalog.arguments import check_arguments as check_arguments
    from padrec.catalog.catalog import Catalog as Catalog
    from padrec.catalog.errors import InputError as InputError
    from padrec.catalog.trie import CatalogTrie as CatalogTrie
    from padrec.catalog.vocabulary import SemanticIDVocabulary as SemanticIDVocabulary
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
