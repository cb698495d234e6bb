import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding.layers.layer_operations import LayerOperations
from padrec.drafts import FeatureDraftNetwork, FoldedFusion, PositionAware
from padrec.drafts.draft_operations import DraftOperations, TreeLevel
from padrec.drafts.folded_fusion import Projection
from padrec.drafts.position_aware import PAD_REC
from tests.drafts.reference_drafting import random_network
from tests.drafts.test_position_aware import FORMS
from tests.stubs import tiny_target

_VOCABULARIES = [SemanticIDVocabulary((5, 6, 7), shared_codes=shared) for shared in (False, True)]


def target_and_draft(
    vocabulary: SemanticIDVocabulary, dtype: torch.dtype, form: PositionAware = PAD_REC
) -> tuple[PreTrainedModel, FeatureDraftNetwork]:
    model = tiny_target(vocabulary, dtype=dtype)
    return model, random_network(model, vocabulary.n_slot_states, form)


def folded(
    model: PreTrainedModel,
    network: FeatureDraftNetwork,
    vocabulary: SemanticIDVocabulary = _VOCABULARIES[0],
    first: Projection | None = None,
) -> FoldedFusion:
    return FoldedFusion(network, model, vocabulary, LayerOperations(), DraftOperations(), first)


def as_trained(
    network: FeatureDraftNetwork, embedding: nn.Module, tokens: Tensor, features: Tensor, slots: Tensor, step: int
) -> Tensor:
    embedded = network.embedded(embedding(tokens))
    result: Tensor = network.position_aware(network.fusion, embedded, features, slots, step)
    return result


def every_token(vocabulary: SemanticIDVocabulary, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens and slots `[1, V]` and features `[1, V, d]`."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(1, vocabulary.size, 32, generator=generator, dtype=torch.float64).to(dtype)
    slots = vocabulary.token_slots
    if slots is None:
        slots = torch.randint(vocabulary.n_slot_states, (vocabulary.size,), generator=generator)
    return torch.arange(vocabulary.size)[None], slots[None], features


@pytest.mark.parametrize("step", range(5))
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("vocabulary", _VOCABULARIES, ids=["own codes", "shared codes"])
def test_folded_fusion_equals_the_fusion_as_trained(
    vocabulary: SemanticIDVocabulary, form: PositionAware, step: int
) -> None:
    model, network = target_and_draft(vocabulary, torch.float64, form)
    tokens, slots, features = every_token(vocabulary, torch.float64)
    expected = as_trained(network, model.get_input_embeddings(), tokens, features, slots, step)
    generator = torch.Generator().manual_seed(2)
    weight, bias = (torch.randn(*shape, generator=generator).double() for shape in ((12, 32), (12,)))
    fusion = folded(model, network, vocabulary, (weight, bias))
    # Where a token determines its slot, slots are not read.
    reads_slots = any(terms.slots is not None for terms in fusion._terms)
    assert reads_slots == (
        form.steps == "slot_and_step" or (vocabulary.shared_codes and form.slots in ("input", "next"))
    )
    given = slots if reads_slots else torch.full_like(slots, -1)
    # A vector gate is not linear, so the layer computes its own queries, keys and values.
    projected = None if form.gate == "vector" else nn.functional.linear(expected, weight, bias)
    if step == 0:
        torch.testing.assert_close(fusion.read(features, tokens, given)[:2], (expected, projected), rtol=0, atol=1e-9)
        return
    # The same features in another order.
    parents = torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(1))[None]
    logits, mapped = fusion.look(features[:, parents[0].argsort()])
    level = TreeLevel(parents, None, torch.arange(vocabulary.size), 0)
    found, _ = fusion.extend(tokens, mapped, given, step, level)
    torch.testing.assert_close(found[:2], (expected, projected), rtol=0, atol=1e-9)
    torch.testing.assert_close(logits[:, parents[0]], model.get_output_embeddings()(features), rtol=0, atol=1e-10)


def test_the_nodes_of_a_depth_see_themselves_and_what_their_parents_see() -> None:
    vocabulary = _VOCABULARIES[0]
    model, network = target_and_draft(vocabulary, torch.float64)
    tokens, slots, features = every_token(vocabulary, torch.float64)
    fusion = folded(model, network)
    mapped, nodes = fusion.look(features[:, :3])[1], torch.arange(6)
    root, parents = torch.zeros(1, 3, dtype=torch.long), torch.tensor([[2, 0, 2]])
    _, seen = fusion.extend(tokens[:, 4:7], mapped, slots[:, 4:7], 1, TreeLevel(root, None, nodes, 0))
    assert seen is not None
    assert torch.equal(seen[0], torch.eye(6).bool()[:3])
    _, seen = fusion.extend(tokens[:, 4:7], mapped, slots[:, 4:7], 2, TreeLevel(parents, seen, nodes, 3))
    assert seen is not None
    assert [row.nonzero()[:, 0].tolist() for row in seen[0]] == [[2, 3], [0, 4], [2, 5]]


@pytest.mark.parametrize("step", range(4))
def test_folding_costs_no_accuracy_in_bfloat16(step: int) -> None:
    vocabulary = _VOCABULARIES[0]
    model, network = target_and_draft(vocabulary, torch.bfloat16)
    tokens, slots, features = every_token(vocabulary, torch.bfloat16)
    rounded = as_trained(network, model.get_input_embeddings(), tokens, features, slots, step)
    fusion = folded(model, network)
    if step == 0:
        found = fusion.read(features, tokens, slots).hidden
    else:
        level = TreeLevel(tokens, None, tokens[0], 0)
        found = fusion.extend(tokens, fusion.look(features)[1], slots, step, level)[0].hidden
    assert found.dtype == torch.bfloat16
    # The same weights, already rounded, without rounding in between.
    embedding = model.double().get_input_embeddings()
    exact = as_trained(network.double(), embedding, tokens, features.double(), slots, step)
    assert (found - exact).abs().mean() <= 1.2 * (rounded - exact).abs().mean()
    torch.testing.assert_close(found.double(), exact, rtol=0.02, atol=0.05)


def test_slots_are_tracked_where_code_tokens_are_shared() -> None:
    shared = _VOCABULARIES[1]
    model, network = target_and_draft(shared, torch.float64)
    features = torch.randn(1, 1, 32, dtype=torch.float64).expand(-1, 2, -1)
    one, other = folded(model, network, shared).read(features, torch.full((1, 2), 5), torch.tensor([[0, 1]])).hidden[0]
    assert not torch.allclose(one, other)


def test_a_language_model_s_head_is_not_held_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    model, network = target_and_draft(_VOCABULARIES[0], torch.float64)
    _, _, features = every_token(_VOCABULARIES[0], torch.float64)
    logits, mapped = folded(model, network).look(features)
    monkeypatch.setattr("padrec.drafts.folded_fusion._MOST_JOINED_ROWS", 8)
    fusion = folded(model, network)
    assert fusion._joined is None
    torch.testing.assert_close(fusion.look(features), (logits, mapped))
