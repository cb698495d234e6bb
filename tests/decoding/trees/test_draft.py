import pytest
import torch

from padrec.catalog import Catalog, SemanticIDVocabulary
from padrec.decoding import (
    AutoregressiveDecoder,
    CatalogDraft,
    DynamicTree,
    ListRequest,
    Sampling,
    SpeculativeDecoder,
    TransformersRunner,
)
from tests.stubs import random_catalog, random_prompts, tiny_target

_SIZES, _K = (4, 5, 4, 3), 3
_CATALOG = random_catalog(_SIZES, 30)


@pytest.mark.parametrize("constrained", [True, False], ids=["catalog", "free"])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("separator", [True, False], ids=["separator", "dense"])
def test_what_the_catalog_proposes_changes_no_list(separator: bool, sampling: Sampling, constrained: bool) -> None:
    vocabulary = SemanticIDVocabulary(_SIZES, separator=separator)
    request = ListRequest.build(_CATALOG, vocabulary, _K, constrained=constrained, sampling=sampling)
    runner = TransformersRunner(tiny_target(vocabulary))
    prompts = random_prompts(_CATALOG, vocabulary, [2, 0, 5, 1])
    expected, _ = AutoregressiveDecoder().bind(runner, request).decode(prompts, torch.Generator().manual_seed(0))
    decoder = SpeculativeDecoder(CatalogDraft(), DynamicTree(depth=4, width=6, nodes=20))
    found, _ = decoder.bind(runner, request).decode(prompts, torch.Generator().manual_seed(0))
    assert torch.equal(found.tokens, expected.tokens)


def test_a_tree_that_holds_all_that_may_follow_takes_one_pass_for_each_item() -> None:
    """Two items follow each first code here: with both in the tree nothing is left to guess."""
    codes = torch.tensor([[first, rest, rest, rest] for first in range(4) for rest in range(2)])
    catalog = Catalog(codes, [str(item) for item in range(8)])
    vocabulary = SemanticIDVocabulary(catalog.codebook_sizes)
    request = ListRequest.build(catalog, vocabulary, _K)
    runner = TransformersRunner(tiny_target(vocabulary))
    prompts = random_prompts(catalog, vocabulary, [2, 0, 5, 1])
    # The root, and codes two to four with the separator of both items.
    decoder = SpeculativeDecoder(CatalogDraft(), DynamicTree(depth=4, width=2, nodes=9), forced_tokens=False)
    _, trace = decoder.bind(runner, request).decode(prompts, torch.Generator())
    # The first code of the first item comes from reading the prompt.
    assert trace.target_passes.tolist() == [_K] * 4
