"""Layer stacks with a cache against the forward pass of the transformers model that they are taken from."""

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from padrec.decoding import CachedLayers, FusedLayers, Placement, TransformersLayers, TransformersRunner, can_fuse
from padrec.targets import to_precision

_WIDTH = 12
_FUSED: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama with biases": {"model_type": "llama", "attention_bias": True},
    "llama, other rotary": {
        "model_type": "llama",
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 50.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "llama, scaled rotary": {
        "model_type": "llama",
        "rope_parameters": {"rope_type": "yarn", "rope_theta": 50.0, "factor": 4.0},
        "max_position_embeddings": 32,
    },
    "mistral without a window": {"model_type": "mistral", "sliding_window": None},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3"},
}
_OTHERS: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2"},
    "gemma": {"model_type": "gemma"},
    "llama with another activation": {"model_type": "llama", "hidden_act": "gelu"},
}


def config_of(settings: dict[str, Any], kv_heads: int = 2) -> PretrainedConfig:
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 20}
    if settings["model_type"] != "gpt2":
        sizes |= {"intermediate_size": 48, "num_key_value_heads": kv_heads, "head_dim": 8}
    return AutoConfig.for_model(**{**sizes, **settings})


def random_model(config: PretrainedConfig, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """A stack of layers all of whose weights count: also norms and biases, which start at one and zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModel.from_config(config, attn_implementation="sdpa")
        for parameter in model.parameters():
            nn.init.normal_(parameter, mean=float(parameter.ndim == 1) / 2, std=0.3)
    to_precision(model, dtype)
    model.eval().requires_grad_(False)
    return model


def layers_of(model: PreTrainedModel) -> CachedLayers:
    """As a runner makes them."""
    layers: CachedLayers = TransformersRunner(with_head(model))._layers
    return layers


def with_head(model: PreTrainedModel) -> PreTrainedModel:
    """What a runner needs of a whole language model."""
    stub: Any = nn.Module()
    stub.config, stub.base_model = model.config, model
    stub.get_input_embeddings = stub.get_output_embeddings = model.get_input_embeddings
    found: PreTrainedModel = stub
    return found


def two_texts() -> Tensor:
    return torch.randint(20, (2, _WIDTH), generator=torch.Generator().manual_seed(1))


def whole_pass(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """Features `[B, T, d]` after the final norm, by the model's own forward pass and without a cache."""
    features: Tensor = model(input_ids=tokens, use_cache=False).last_hidden_state
    return features


def assert_reads_like(model: PreTrainedModel, layers: CachedLayers) -> None:
    """Two rows that advance at their own pace: prompts, a tree, its path, one more of a tree read in two passes."""
    embed: Any = model.get_input_embeddings()
    tokens = two_texts()
    reader = layers.open(2, 40)
    for _ in range(2):  # what an earlier text has left in the cache is never seen
        lengths = torch.tensor([5, 3])
        columns = torch.arange(5).expand(2, -1)
        read, _ = reader(embed(tokens[:, :5]), Placement(torch.zeros(2, dtype=torch.long), columns))
        for row, length in enumerate(lengths.tolist()):
            expected = whole_pass(model, tokens[row : row + 1, :length])
            torch.testing.assert_close(read[row, :length], expected[0], rtol=0, atol=1e-4)

        # The tokens that follow are the nodes 0, 2 and 4 of a tree; beside them stand others.
        parents = [0, 0, 0, 2, 2]
        nodes = torch.stack([row[[at, 0, at + 1, 1, at + 2]] for row, at in zip(tokens, lengths.tolist(), strict=True)])
        ancestors = torch.eye(5, dtype=torch.bool)
        for node in range(1, 5):
            ancestors[node] |= ancestors[parents[node]]
        ancestors = ancestors.expand(2, -1, -1)
        tree, _ = reader(embed(nodes), Placement(lengths, ancestors.sum(-1) - 1, 0, ancestors))
        for row, past in enumerate(lengths.tolist()):
            for node in range(5):
                path = nodes[row, ancestors[row, node]]
                expected = whole_pass(model, torch.cat([tokens[row, :past], path])[None])
                torch.testing.assert_close(tree[row, node], expected[0, -1], rtol=0, atol=1e-4)

        # The second row keeps one node less.
        reader.keep(lengths, torch.tensor([[0, 2, 4], [0, 2, 2]]))
        kept = lengths + torch.tensor([3, 2])
        following = tokens.gather(1, kept[:, None] + torch.arange(2))
        seen = torch.tensor([[True, False, False], [True, True, False]])[:, None, None].expand(-1, 2, -1, -1)
        first, _ = reader(embed(following[:, :1]), Placement(kept, torch.zeros(2, 1, dtype=torch.long), 0, seen[0]))
        second, _ = reader(embed(following[:, 1:]), Placement(kept, torch.ones(2, 1, dtype=torch.long), 1, seen[1]))
        for row, past in enumerate(kept.tolist()):
            expected = whole_pass(model, tokens[row : row + 1, : past + 2])[0, past:]
            found = torch.cat([first[row], second[row]])
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("name", _FUSED)
def test_fused_layers_read_what_the_model_reads(name: str, kv_heads: int) -> None:
    config = config_of(_FUSED[name], kv_heads)
    model = random_model(config)
    layers = layers_of(model)
    assert can_fuse(config)
    assert isinstance(layers, FusedLayers)
    # The norms are taken in float32.
    assert_reads_like(model, layers)


@pytest.mark.parametrize("name", _OTHERS)
def test_other_layers_are_left_to_transformers(name: str) -> None:
    config = config_of(_OTHERS[name])
    model = random_model(config)
    layers = layers_of(model)
    assert not can_fuse(config)
    assert isinstance(layers, TransformersLayers)
    assert_reads_like(model, layers)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"model_type": "mistral", "sliding_window": 8}, id="window"),
        pytest.param({"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8}, id="window-qwen2"),
        pytest.param({"model_type": "qwen3", "use_sliding_window": True, "sliding_window": 8}, id="window-qwen3"),
        pytest.param({"model_type": "llama", "hidden_act": "gelu"}, id="activation"),
        pytest.param({"model_type": "llama", "mlp_bias": True}, id="mlp-bias"),
        pytest.param(
            {
                "model_type": "llama",
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5},
            },
            id="partial-rotary",
        ),
        pytest.param(
            {"model_type": "llama", "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
            id="rotary-by-length",
        ),
        pytest.param({"model_type": "gpt2"}, id="gpt2"),
        pytest.param({"model_type": "gemma"}, id="gemma"),
        pytest.param({"model_type": "phi3", "pad_token_id": 0}, id="phi3"),
    ],
)
def test_what_the_fused_layers_do_not_compute_is_refused(settings: dict[str, Any]) -> None:
    assert not can_fuse(config_of(settings))


def test_weights_that_are_not_trained_are_held_once() -> None:
    model: Any = random_model(config_of(_FUSED["qwen2"]))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    tokens = two_texts()
    expected = whole_pass(model, tokens)
    layers_of(model)
    for layer in model.layers:
        joined = [layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj]
        for linears in (joined, [layer.mlp.gate_proj, layer.mlp.up_proj]):
            assert len({linear.weight.untyped_storage().data_ptr() for linear in linears}) == 1
            assert linears[0].weight.untyped_storage().nbytes() == sum(linear.weight.nbytes for linear in linears)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert torch.equal(whole_pass(model, tokens), expected)


def test_weights_that_are_trained_stay_where_they_are() -> None:
    model = random_model(config_of(_FUSED["qwen2"])).requires_grad_(True)
    places = {name: weight.data_ptr() for name, weight in model.named_parameters()}
    layers = layers_of(model)
    assert {name: weight.data_ptr() for name, weight in model.named_parameters()} == places
    assert all(weight.is_leaf for weight in model.parameters())
    with torch.no_grad():
        assert_reads_like(model, layers)


def test_frozen_layers_can_be_joined_again() -> None:
    """As by the runners that follow one another while a draft is trained."""
    model = random_model(config_of(_FUSED["llama"]))
    assert_reads_like(model, layers_of(model))
    with torch.inference_mode():
        assert_reads_like(model, layers_of(model))
    assert_reads_like(model, layers_of(model))


@pytest.mark.parametrize("enabled", [True, False], ids=["autocast", "plain"])
def test_fused_layers_compute_in_the_precision_of_their_weights(enabled: bool) -> None:
    model = random_model(config_of(_FUSED["qwen3"]), torch.float32)
    layers = layers_of(model)
    embed: Any = model.get_input_embeddings()
    hidden = embed(two_texts()).bfloat16()
    placement = Placement(torch.zeros(2, dtype=torch.long), torch.arange(_WIDTH).expand(2, -1))
    reader = layers.open(2, _WIDTH)
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        found, _ = reader(hidden, placement)
    expected: Tensor = model(inputs_embeds=hidden.float(), use_cache=False).last_hidden_state
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("enabled", [True, False], ids=["autocast", "plain"])
def test_other_layers_compute_in_the_precision_around_them(enabled: bool) -> None:
    model = random_model(config_of(_OTHERS["gemma"]), torch.float32)
    layers = layers_of(model)
    embed: Any = model.get_input_embeddings()
    tokens = two_texts()
    placement = Placement(torch.zeros(2, dtype=torch.long), torch.arange(_WIDTH).expand(2, -1))
    reader = layers.open(2, _WIDTH)
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        found, _ = reader(embed(tokens), placement)
        expected = whole_pass(model, tokens)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=0, atol=0.1 if enabled else 1e-4)


def test_buffers_stay_where_they_are_when_other_texts_are_read_in_between() -> None:
    """Recorded passes write to them."""
    model = random_model(config_of(_FUSED["llama"]))
    layers: Any = layers_of(model)
    sizes = [(1, 16), (2, 16), (1, 32)]
    places, readers = [], []
    for _ in range(2):
        for batch, capacity in sizes:
            reader = layers.open(batch, capacity)
            start = torch.zeros(batch, 1, dtype=torch.long)
            reader(torch.zeros(batch, 1, 32), Placement(start[:, 0], start))
            places.append(reader._session._buffers.keys.data_ptr())
            readers.append(reader)
    assert places[:3] == places[3:]
    assert len(set(places)) == 3


@pytest.mark.parametrize("settings", [_FUSED["llama"], _OTHERS["gemma"]], ids=str)
def test_a_cache_goes_with_the_last_session_that_uses_it(settings: dict[str, Any]) -> None:
    layers: Any = layers_of(random_model(config_of(settings)))
    first, second = (layers.open(2, 16) for _ in range(2))
    inner = first._session
    held = weakref.ref(inner._buffers if isinstance(layers, FusedLayers) else inner._cache)
    del first, inner
    gc.collect()
    assert held() is not None
    del second
    gc.collect()
    assert held() is None
