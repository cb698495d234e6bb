import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.drafts import FeatureDraftNetwork, PositionAwareEmbedding, StepCache
from tests.drafts.reference_drafting import random_network
from tests.stubs import tiny_target

_VOCABULARY = SemanticIDVocabulary((5, 6, 7))
MODEL_TYPES = ["llama", "qwen3"]
# Sizes of a position-aware part on its own.
_SIZE, _N_SLOT_STATES, _N_STEPS = 6, 5, 4
SWITCHES = [(True, True), (True, False), (False, True), (False, False)]


def rms_norm(values: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return weight * values / (values.square().mean(-1, keepdim=True) + epsilon).sqrt()


def plain_layer(network: FeatureDraftNetwork, hidden: Tensor, n_heads: int, epsilon: float) -> Tensor:
    """The decoder layer on a single input, `[d]`, which attends to nothing but itself."""
    weights = dict(network.layer.named_parameters())
    value = weights["self_attn.v_proj.weight"] @ hidden  # [kv heads * head size]
    n_repeats = n_heads * 8 // len(value)
    attended = torch.cat([part for part in value.split(8) for _ in range(n_repeats)])
    hidden = hidden + weights["self_attn.o_proj.weight"] @ attended
    normed = rms_norm(hidden, weights["post_attention_layernorm.weight"], epsilon)
    gate = nn.functional.silu(weights["mlp.gate_proj.weight"] @ normed)
    return hidden + weights["mlp.down_proj.weight"] @ (gate * (weights["mlp.up_proj.weight"] @ normed))


_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_GROUPED = {**_SIZES, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 48}


@pytest.mark.parametrize("model_type", ["gpt2", "opt", "gpt_neox", "falcon"])
def test_a_draft_for_layers_that_cannot_be_used_alone_is_refused(model_type: str) -> None:
    config = AutoConfig.for_model(model_type, **_SIZES)
    with pytest.raises(InputError, match=f"^a draft for a {model_type} target: expected a target whose decoder layers"):
        FeatureDraftNetwork(config, _N_SLOT_STATES, _N_STEPS)


@pytest.mark.parametrize("model_type", ["gemma", "helium", "qwen3_moe"])
def test_other_families_have_drafts_too(model_type: str) -> None:
    config = AutoConfig.for_model(model_type, **_GROUPED)
    assert FeatureDraftNetwork(config, _N_SLOT_STATES, _N_STEPS).layer.training


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_one_layer_of_the_targets_architecture_without_input_and_final_norm(model_type: str) -> None:
    model = tiny_target(_VOCABULARY, model_type=model_type)
    network = random_network(model, _VOCABULARY.n_slot_states)
    embedding, feature = torch.randn(2, 32, dtype=torch.float64)
    position, slot, step = torch.tensor([[17]]), torch.tensor([[2]]), 1
    visible = torch.ones(1, 1, 1, dtype=torch.bool)
    result = network(embedding[None, None], feature[None, None], slot, step, position, visible, StepCache())
    fused = network.fusion.weight @ torch.cat([embedding, feature]) + network.fusion.bias
    hidden = network.position_aware(fused, slot[0, 0], step)
    expected = plain_layer(network, hidden, n_heads=4, epsilon=model.config.rms_norm_eps)
    # The norms of transformers work in float32, whatever the model's precision.
    torch.testing.assert_close(result[0, 0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_weights_hold_no_embedding_no_head_and_no_input_norm(model_type: str) -> None:
    vocabulary = SemanticIDVocabulary((50, 60, 70))
    model = tiny_target(vocabulary, model_type=model_type)
    state = FeatureDraftNetwork(model.config, vocabulary.n_slot_states, n_steps=3).state_dict()
    layer = model.get_submodule("model.layers.0").state_dict()
    del layer["input_layernorm.weight"]
    shapes = {name: tuple(weight.shape) for name, weight in state.items()}
    assert {name: shape for name, shape in shapes.items() if not name.startswith("layer.")} == {
        "fusion.weight": (32, 64),
        "fusion.bias": (32,),
        "position_aware.slot_embedding": (5, 32),
        "position_aware.slot_coefficient": (),
        "position_aware.step_embedding": (2, 32),
        "position_aware.gate.weight": (1, 32),
        "position_aware.gate.bias": (1,),
    }
    assert {name.removeprefix("layer."): shape for name, shape in shapes.items() if name.startswith("layer.")} == {
        name: tuple(weight.shape) for name, weight in layer.items()
    }


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_target_is_left_as_it_was(model_type: str) -> None:
    model = tiny_target(_VOCABULARY, model_type=model_type)
    before = model.config.to_dict()
    FeatureDraftNetwork(model.config, _VOCABULARY.n_slot_states, n_steps=3)
    assert model.config.to_dict() == before


def test_the_order_of_positions_matters_as_in_the_target() -> None:
    network = random_network(tiny_target(_VOCABULARY), _VOCABULARY.n_slot_states)
    hidden = torch.randn(1, 3, 32, dtype=torch.float64)
    causal = torch.ones(3, 3, dtype=torch.bool).tril()[None]

    def attend(*positions: int) -> Tensor:
        return network.attend(hidden, torch.tensor([positions]), causal, StepCache())

    torch.testing.assert_close(attend(0, 1, 2), attend(5, 6, 7), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(attend(0, 1, 2), attend(0, 1, 5), rtol=1e-3, atol=1e-3)


def test_the_draft_is_hass_before_training() -> None:
    model = tiny_target(_VOCABULARY)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        padrec = FeatureDraftNetwork(model.config, 5, 3).double()
        torch.manual_seed(3)
        hass = FeatureDraftNetwork(model.config, 5, 3, slot_embeddings=False, step_embeddings=False).double()
    hass.load_state_dict(padrec.state_dict(), strict=False)
    embeddings, features = torch.randn(2, 1, 4, 32, dtype=torch.float64)
    slots, positions = torch.arange(4)[None], torch.arange(4)[None]
    causal = torch.ones(4, 4, dtype=torch.bool).tril()[None]
    ours, theirs = (
        network(embeddings, features, slots, 2, positions, causal, StepCache()) for network in (padrec, hass)
    )
    assert torch.equal(ours, theirs)


def random_embedding(slot_embeddings: bool = True, step_embeddings: bool = True) -> PositionAwareEmbedding:
    module = PositionAwareEmbedding(
        _SIZE, _N_SLOT_STATES, _N_STEPS, slot_embeddings=slot_embeddings, step_embeddings=step_embeddings
    ).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def random_inputs() -> tuple[Tensor, Tensor]:
    """Fused inputs `[B, T, d]` and slots `[B, T]`, every slot among them."""
    return torch.randn(3, _N_SLOT_STATES, _SIZE, dtype=torch.float64), torch.arange(_N_SLOT_STATES).expand(3, -1)


def plain_output(module: PositionAwareEmbedding, fused: Tensor, slot: int, step: int) -> Tensor:
    """One input, `[d]`, written out from the equations."""
    result = fused.clone()
    if module.slot_embedding is not None and module.slot_coefficient is not None:
        result += module.slot_coefficient * module.slot_embedding[slot]
    if module.step_embedding is not None and module.gate is not None and step > 0:
        gate = 1 / (1 + torch.exp(-(module.gate.weight[0] @ fused + module.gate.bias[0])))
        result += gate * module.step_embedding[min(step, _N_STEPS - 1) - 1]
    return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("step", [0, 1, _N_STEPS - 1, 9])
def test_output_equals_input_exactly_at_initialisation(step: int, dtype: torch.dtype) -> None:
    fused, slots = random_inputs()
    fused = fused.to(dtype)
    module = PositionAwareEmbedding(_SIZE, _N_SLOT_STATES, _N_STEPS).to(dtype)
    assert torch.equal(module(fused, slots, step), fused)


def test_gradients_reach_both_embeddings_at_once() -> None:
    module = PositionAwareEmbedding(_SIZE, _N_SLOT_STATES, _N_STEPS)
    fused, slots = random_inputs()
    module(fused.float(), slots, 2).square().sum().backward()
    assert module.slot_embedding is not None
    assert module.slot_embedding.grad is not None
    assert module.step_embedding is not None
    assert module.step_embedding.grad is not None
    assert (module.slot_embedding.grad != 0).all()
    assert (module.step_embedding.grad[1] != 0).all()
    assert (module.step_embedding.grad[[0, 2]] == 0).all()  # of the steps 1 and 3


@pytest.mark.parametrize("step", range(_N_STEPS + 2))
@pytest.mark.parametrize(("slot_embeddings", "step_embeddings"), SWITCHES)
def test_each_half_adds_its_own_term(slot_embeddings: bool, step_embeddings: bool, step: int) -> None:
    module = random_embedding(slot_embeddings, step_embeddings)
    fused, slots = random_inputs()
    result = module(fused, slots, step)
    for row in range(fused.shape[0]):
        for place in range(fused.shape[1]):
            expected = plain_output(module, fused[row, place], int(slots[row, place]), step)
            torch.testing.assert_close(result[row, place], expected, rtol=0, atol=1e-12)


def test_features_of_the_target_have_no_step_term() -> None:
    module = random_embedding(slot_embeddings=False)
    fused, slots = random_inputs()
    assert torch.equal(module(fused, slots, 0), fused)


def test_deep_steps_share_the_last_embedding() -> None:
    module = random_embedding()
    fused, slots = random_inputs()
    last = module(fused, slots, _N_STEPS - 1)
    assert torch.equal(module(fused, slots, _N_STEPS), last)
    assert torch.equal(module(fused, slots, 50), last)
    assert not torch.equal(module(fused, slots, _N_STEPS - 2), last)


@pytest.mark.parametrize(("d", "n_slots", "n_steps"), [(4096, 4, 8), (32, 3, 2)])
def test_number_of_parameters(d: int, n_slots: int, n_steps: int) -> None:
    def count(slot_embeddings: bool, step_embeddings: bool) -> int:
        module = PositionAwareEmbedding(
            d, n_slots + 2, n_steps, slot_embeddings=slot_embeddings, step_embeddings=step_embeddings
        )
        return sum(parameter.numel() for parameter in module.parameters())

    slot_part, step_part = (n_slots + 2) * d + 1, (n_steps - 1) * d + d + 1
    assert count(True, True) == slot_part + step_part
    assert count(True, False) == slot_part
    assert count(False, True) == step_part
    assert count(False, False) == 0
    if d == 4096:
        assert count(True, True) == 57_346


def test_step_embeddings_need_a_second_step() -> None:
    with pytest.raises(InputError, match="1 draft step: expected at least 2"):
        PositionAwareEmbedding(_SIZE, _N_SLOT_STATES, 1)
    PositionAwareEmbedding(_SIZE, _N_SLOT_STATES, 1, step_embeddings=False)
