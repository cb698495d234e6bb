import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding.layers.layer_operations import Head, LayerOperations
from padrec.drafts import FoldedFusion, TrackedFusion, fusion_for
from padrec.drafts.draft_operations import DraftOperations
from padrec.drafts.feature_draft_network import FeatureDraftNetwork
from tests.drafts.reference_drafting import random_network
from tests.drafts.test_position_aware import SWITCHES
from tests.stubs import tiny_target

_VOCABULARY = SemanticIDVocabulary((5, 6, 7))


def target_and_draft(dtype: torch.dtype, *switches: bool) -> tuple[PreTrainedModel, FeatureDraftNetwork]:
    model = tiny_target(_VOCABULARY, dtype=dtype)
    slot_embeddings, step_embeddings = switches or (True, True)
    network = random_network(
        model, _VOCABULARY.n_slot_states, slot_embeddings=slot_embeddings, step_embeddings=step_embeddings
    )
    return model, network


def tracked_fusion(network: FeatureDraftNetwork, embedding: nn.Module, head: nn.Module) -> TrackedFusion:
    return TrackedFusion(network, embedding, Head(head, LayerOperations()))


def every_token(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens and slots `[1, V]` and features `[1, V, d]`."""
    token_slots = _VOCABULARY.token_slots
    assert token_slots is not None
    features = torch.randn(1, _VOCABULARY.size, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.arange(_VOCABULARY.size)[None], token_slots[None], features.to(dtype)


@pytest.mark.parametrize("step", range(5))
@pytest.mark.parametrize(("slot_embeddings", "step_embeddings"), SWITCHES)
def test_folded_fusion_equals_the_fusion_as_trained(slot_embeddings: bool, step_embeddings: bool, step: int) -> None:
    model, network = target_and_draft(torch.float64, slot_embeddings, step_embeddings)
    embedding = model.get_input_embeddings()
    tokens, slots, features = every_token(torch.float64)
    head = model.get_output_embeddings()
    tracked = tracked_fusion(network, embedding, head)(tokens, features, slots, step)
    fusion = FoldedFusion(network, embedding, head, slots[0], LayerOperations(), DraftOperations())
    unknown = torch.full_like(slots, -1)
    torch.testing.assert_close(fusion(tokens, fusion.read(features), unknown, step), tracked, rtol=0, atol=1e-10)
    # The same features in another order.
    parents = torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(1))[None]
    logits, read = fusion.look(features[:, parents[0].argsort()])
    torch.testing.assert_close(fusion(tokens, read, unknown, step, parents), tracked, rtol=0, atol=1e-10)
    torch.testing.assert_close(logits[:, parents[0]], head(features), rtol=0, atol=1e-10)


@pytest.mark.parametrize("folded", [True, False])
def test_the_nodes_of_a_depth_see_themselves_and_what_their_parents_see(folded: bool) -> None:
    model, network = target_and_draft(torch.float64)
    maps = model.get_input_embeddings(), model.get_output_embeddings()
    tokens, slots, features = every_token(torch.float64)
    fusion = (
        FoldedFusion(network, *maps, slots[0], LayerOperations(), DraftOperations())
        if folded
        else tracked_fusion(network, *maps)
    )
    read, rows = fusion.read(features[:, :3]), torch.arange(6)
    level, of = tokens[:, 4:7], slots[:, 4:7]
    root, parents = torch.zeros(1, 3, dtype=torch.long), torch.tensor([[2, 0, 2]])
    fused, seen = fusion.extend(level, read, of, 1, root, None, rows, 0)
    assert torch.equal(fused, fusion(level, read, of, 1, root))
    assert torch.equal(seen[0], torch.eye(6).bool()[:3])
    fused, seen = fusion.extend(level, read, of, 2, parents, seen, rows, 3)
    assert torch.equal(fused, fusion(level, read, of, 2, parents))
    assert [row.nonzero()[:, 0].tolist() for row in seen[0]] == [[2, 3], [0, 4], [2, 5]]


@pytest.mark.parametrize("step", range(4))
def test_folding_costs_no_accuracy_in_bfloat16(step: int) -> None:
    model, network = target_and_draft(torch.bfloat16)
    tokens, slots, features = every_token(torch.bfloat16)
    maps = model.get_input_embeddings(), model.get_output_embeddings()
    tracked = tracked_fusion(network, *maps)(tokens, features, slots, step)
    fusion = FoldedFusion(network, *maps, slots[0], LayerOperations(), DraftOperations())
    folded = fusion(tokens, fusion.read(features), slots, step)
    assert folded.dtype == torch.bfloat16
    # The same weights, already rounded, without rounding in between.
    exactly = model.double()
    exact = tracked_fusion(network.double(), exactly.get_input_embeddings(), exactly.get_output_embeddings())(
        tokens, features.double(), slots, step
    )
    assert (folded - exact).abs().mean() <= 1.2 * (tracked - exact).abs().mean()
    torch.testing.assert_close(folded.double(), exact, rtol=0.02, atol=0.05)


def test_slots_are_tracked_where_code_tokens_are_shared() -> None:
    shared = SemanticIDVocabulary((5, 6, 7), shared_codes=True)
    model = tiny_target(shared)
    network = random_network(model, shared.n_slot_states)
    fusion = fusion_for(
        network,
        model.get_input_embeddings(),
        model.get_output_embeddings(),
        shared,
        LayerOperations(),
        DraftOperations(),
    )
    tokens, features = torch.full((1, 2), 5), torch.randn(1, 1, 32, dtype=torch.float64).expand(-1, 2, -1)
    one, other = fusion(tokens, features, torch.tensor([[0, 1]]), 1)[0]
    assert not torch.allclose(one, other)


def test_slots_are_folded_where_a_token_gives_its_slot_away() -> None:
    model, network = target_and_draft(torch.float64)
    maps = model.get_input_embeddings(), model.get_output_embeddings()
    assert isinstance(fusion_for(network, *maps, _VOCABULARY, LayerOperations(), DraftOperations()), FoldedFusion)


def test_a_language_model_s_head_is_not_held_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("padrec.drafts.folded_fusion._MOST_JOINED_ROWS", 8)
    model, network = target_and_draft(torch.float64)
    _, slots, features = every_token(torch.float64)
    head = model.get_output_embeddings()
    fusion = FoldedFusion(network, model.get_input_embeddings(), head, slots[0], LayerOperations(), DraftOperations())
    logits, read = fusion.look(features)
    torch.testing.assert_close(logits, head(features))
    torch.testing.assert_close(read, fusion.read(features))
