"""Random catalogs to search."""

import torch
from hypothesis import strategies as st

from padrec.catalog import Catalog, SemanticIDVocabulary


@st.composite
def searches(draw: st.DrawFn, last: st.SearchStrategy[int]) -> tuple[Catalog, SemanticIDVocabulary, int, int, int]:
    """Catalog, vocabulary, K, width and a further size; catalogs of one to four slots, thin and dense ones."""
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    item = st.tuples(*(st.integers(0, size - 1) for size in sizes))
    items = draw(st.lists(item, min_size=1, max_size=30))
    catalog = Catalog(torch.tensor(items), [str(index) for index in range(len(items))])
    vocabulary = SemanticIDVocabulary(sizes, separator=draw(st.booleans()), shared_codes=draw(st.booleans()))
    list_length = draw(st.integers(1, catalog.n_leaves))
    width = draw(st.integers(list_length, list_length + 5))
    return catalog, vocabulary, list_length, width, draw(last)
