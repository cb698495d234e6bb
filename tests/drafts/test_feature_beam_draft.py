from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from padrec.catalog import Catalog, CatalogTrie, InputError, SemanticIDVocabulary
from padrec.decoding import (
    BeamDecoder,
    Branches,
    ListRequest,
    Prompts,
    RelaxedBeamRule,
    Sampling,
    SpeculativeBeamDecoder,
    TransformersRunner,
)
from padrec.decoding.lists.catalog_constraint import CatalogConstraint
from padrec.decoding.trees.draft import DraftPlan
from padrec.drafts import FeatureBeamDraft, NetworkBeamDraft
from tests.decoding.beam.random_searches import searches
from tests.stubs import random_catalog, random_network_draft, random_prompts, tiny_target
from tests.tiny_training import tiny_data, tiny_draft, tiny_recommender

_CATALOG, _VOCABULARY = random_catalog((5, 6, 4), 30), SemanticIDVocabulary((5, 6, 4))


@settings(max_examples=25)
@given(search=searches(st.integers(1, 12)), seed=st.integers(0, 3), temperature=st.sampled_from([0.0, 1.0]))
def test_beams_are_those_of_the_search_without_a_draft(
    search: tuple[Catalog, SemanticIDVocabulary, int, int, int], seed: int, temperature: float
) -> None:
    catalog, vocabulary, list_length, width, draft_width = search
    model = tiny_target(vocabulary, n_layers=1, seed=seed)
    runner, prompts = TransformersRunner(model), random_prompts(catalog, vocabulary, [2, 0, 1], seed=seed)
    request = ListRequest.build(catalog, vocabulary, list_length, sampling=Sampling(temperature))
    draft = NetworkBeamDraft(random_network_draft(model, vocabulary))
    decoders = BeamDecoder(width, look_ahead=0), SpeculativeBeamDecoder(draft, draft_width, width)
    (expected, _), (found, trace) = (
        decoder.bind(runner, request).decode(prompts, torch.Generator().manual_seed(0)) for decoder in decoders
    )
    assert torch.equal(found.leaves, expected.leaves)
    torch.testing.assert_close(found.log_probs, expected.log_probs, rtol=0, atol=1e-9)
    # The first pass reads no prefix, so that at best all of them are read by the second.
    assert (trace.target_passes >= min(1, vocabulary.n_slots - 1)).all()
    assert (trace.target_passes <= vocabulary.n_slots - 1).all()


def test_a_draft_that_proposes_everything_needs_one_pass_after_the_first() -> None:
    model = tiny_target(_VOCABULARY)
    request, prompts = ListRequest.build(_CATALOG, _VOCABULARY, 4), random_prompts(_CATALOG, _VOCABULARY, [2, 0, 4])
    draft = NetworkBeamDraft(random_network_draft(model, _VOCABULARY))
    for rule in (None, RelaxedBeamRule()):
        session = SpeculativeBeamDecoder(draft, 30, rule=rule).bind(TransformersRunner(model), request)
        _, trace = session.decode(prompts, torch.Generator())
        assert trace.target_passes.tolist() == [1, 1, 1]
        assert trace.accepted_lengths.tolist() == [3, 3, 0]  # no length in the first pass, one in the second


def test_a_path_is_read_as_the_same_network_reads_lists() -> None:
    model = tiny_target(_VOCABULARY)
    runner, prompts = TransformersRunner(model), random_prompts(_CATALOG, _VOCABULARY, [2, 0, 4])
    request, draft = ListRequest.build(_CATALOG, _VOCABULARY, 4), random_network_draft(model, _VOCABULARY)
    tokens = _VOCABULARY.encode(_CATALOG.leaf_codes)[[3, 11, 20], :2]  # [3, 2]
    slots = torch.tensor([[0, 1]]).expand(3, -1)
    constraint = CatalogConstraint(CatalogTrie(_CATALOG, _VOCABULARY), _VOCABULARY, 4)
    with torch.inference_mode():
        _, features = runner.open(3, 64).prefill(prompts)
        listwise = draft.bind(runner, request)(DraftPlan(runner, request, 3, 64, 4, 4))
        listwise.begin(prompts, features, tokens[:, 0], slots[:, 0])
        expected = listwise.root_logits()
        below = listwise.extend(tokens[:, 1:], torch.zeros_like(slots[:, :1]), slots[:, 1:], 1)

        beams = NetworkBeamDraft(draft).bind(runner, request)(3, 64, constraint)
        first = beams.begin(prompts, features)
        nodes, own = torch.zeros_like(slots[:, :1]), torch.tensor([[[True, False]]]).expand(3, -1, -1)
        found = beams.extend(Branches(tokens[:, :1], torch.tensor([0]), own, 0), nodes)
        deeper = beams.extend(Branches(tokens[:, 1:], torch.tensor([1]), torch.ones_like(own), 1), nodes)
        last = runner.open(3, 64).prefill(prompts)[0]
    torch.testing.assert_close(first, last)
    torch.testing.assert_close(found[:, 0], expected)
    torch.testing.assert_close(deeper, below)


def test_a_trained_draft_is_read_from_its_folder(tmp_path: Path) -> None:
    data = tiny_data()
    target = tiny_recommender(data)
    target.save_pretrained(tmp_path / "target")
    draft = tiny_draft(data, tmp_path / "target")
    draft.save_pretrained(tmp_path / "draft")
    runner = TransformersRunner(target.backbone.eval(), draft.target.fingerprint)
    prompts = random_prompts(data.catalog, data.vocabulary, [2])
    request = ListRequest.build(data.catalog, data.vocabulary, 3)
    decoder = SpeculativeBeamDecoder(FeatureBeamDraft(str(tmp_path / "draft")), 6)
    plain, _ = BeamDecoder(look_ahead=0).bind(runner, request).decode(prompts, torch.Generator())
    found, _ = decoder.bind(runner, request).decode(prompts, torch.Generator())
    assert torch.equal(found.leaves, plain.leaves)
    with pytest.raises(InputError, match="the draft was trained for the target with fingerprint"):
        decoder.bind(TransformersRunner(target.backbone, "another"), request)


def test_prompts_alone_are_not_enough() -> None:
    model, prompts = tiny_target(_VOCABULARY), Prompts(*(torch.ones(1, 1, dtype=torch.long),) * 2, torch.ones(1).long())
    request, draft = ListRequest.build(_CATALOG, _VOCABULARY, 4), random_network_draft(model, _VOCABULARY)
    constraint = CatalogConstraint(CatalogTrie(_CATALOG, _VOCABULARY), _VOCABULARY, 4)
    with pytest.raises(AssertionError):
        NetworkBeamDraft(draft).bind(TransformersRunner(model), request)(1, 64, constraint).begin(prompts, None)
