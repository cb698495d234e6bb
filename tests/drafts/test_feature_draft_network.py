import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.drafts import FeatureDraftNetwork, StepCache
from tests.drafts.reference_drafting import random_network
from tests.stubs import tiny_target

_VOCABULARY = SemanticIDVocabulary((5, 6, 7))
MODEL_TYPES = ["llama", "qwen3"]


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
        FeatureDraftNetwork(config, 5, 4)


@pytest.mark.parametrize("model_type", ["gemma", "helium", "qwen3_moe"])
def test_other_families_have_drafts_too(model_type: str) -> None:
    config = AutoConfig.for_model(model_type, **_GROUPED)
    assert FeatureDraftNetwork(config, 5, 4).layer.training


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_one_layer_of_the_targets_architecture_without_input_and_final_norm(model_type: str) -> None:
    model = tiny_target(_VOCABULARY, model_type=model_type)
    network = random_network(model, _VOCABULARY.n_slot_states)
    embedding, feature = torch.randn(2, 32, dtype=torch.float64)
    position, slot, step = torch.tensor([[17]]), torch.tensor([[2]]), 1
    visible = torch.ones(1, 1, 1, dtype=torch.bool)
    result = network(embedding[None, None], feature[None, None], slot, step, position, visible, StepCache())
    hidden = network.position_aware(network.fusion, embedding, feature, slot[0, 0], step)
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
        hass = FeatureDraftNetwork(model.config, 5, 3, None).double()
    hass.load_state_dict(padrec.state_dict(), strict=False)
    embeddings, features = torch.randn(2, 1, 4, 32, dtype=torch.float64)
    slots, positions = torch.arange(4)[None], torch.arange(4)[None]
    causal = torch.ones(4, 4, dtype=torch.bool).tril()[None]
    ours, theirs = (
        network(embeddings, features, slots, 2, positions, causal, StepCache()) for network in (padrec, hass)
    )
    assert torch.equal(ours, theirs)
