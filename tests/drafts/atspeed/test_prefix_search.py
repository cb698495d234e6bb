import pytest
import torch

from padrec.catalog import CatalogTrie, SemanticIDVocabulary
from padrec.decoding import BeamDecoder, ListRequest, TransformersRunner
from padrec.decoding.beam.beam_plan import SpeculativeBeamPlan
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.drafts.atspeed import PrefixSearch, contained
from tests.stubs import random_catalog, random_prompts, tiny_target

_CATALOG, _VOCABULARY = random_catalog((5, 6, 4), 30), SemanticIDVocabulary((5, 6, 4))


@pytest.mark.parametrize("renormalise", [False, True])
def test_the_last_beam_is_that_of_the_decoder(renormalise: bool) -> None:
    runner = TransformersRunner(tiny_target(_VOCABULARY))
    prompts = random_prompts(_CATALOG, _VOCABULARY, [3, 1, 4])
    constraint = CatalogConstraint(CatalogTrie(_CATALOG, _VOCABULARY), _VOCABULARY, 4)
    search = PrefixSearch(runner, constraint, SpeculativeBeamPlan.of(constraint.trie, 4, 4, renormalise))
    beams = search(prompts)
    assert [beam.shape for beam in beams] == [(3, 4)] * 3
    request = ListRequest.build(_CATALOG, _VOCABULARY, 4)
    decoder = BeamDecoder(look_ahead=0, renormalise=renormalise).bind(runner, request)
    lists, _ = decoder.decode(prompts, torch.Generator())
    assert torch.equal(constraint.trie.leaf(beams[-1]), lists.leaves.sort(1).values)


def test_a_search_wider_than_the_catalog_finds_everything() -> None:
    runner = TransformersRunner(tiny_target(_VOCABULARY))
    trie = CatalogTrie(_CATALOG, _VOCABULARY)
    plan = SpeculativeBeamPlan.of(trie, trie.n_leaves, trie.n_leaves)
    search = PrefixSearch(runner, CatalogConstraint(trie, _VOCABULARY, 4), plan)
    beams = search(random_prompts(_CATALOG, _VOCABULARY, [2]))
    for level, beam in enumerate(beams, start=1):
        assert beam[0].tolist() == list(range(trie.level_starts[level], trie.level_starts[level + 1]))


def test_steps_are_accepted_until_a_prefix_is_missing() -> None:
    sink = 99
    beams = [torch.tensor([[1, 2], [1, 2], [1, sink]]), torch.tensor([[5, 6]] * 3), torch.tensor([[10, 11]] * 3)]
    drafted = [
        torch.tensor([[1, 2, 3], [1, 3, 4], [1, 3, sink]]),
        torch.tensor([[5, 6, 7], [5, 6, 7], [6, 7, 8]]),
        torch.tensor([[10, 12, 13]] * 3),
    ]
    share, accepted = contained(beams, drafted, sink)
    assert share.tolist() == [[1, 1, 0.5], [0.5, 1, 0.5], [1, 0.5, 0.5]]
    assert accepted.tolist() == [2, 0, 1]
