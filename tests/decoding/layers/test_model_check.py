from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.decoding import check_model
from padrec.targets import TargetRecommender

_SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
_ENCODER_DECODER = {"d_model": 32, "decoder_layers": 2, "encoder_layers": 1, "decoder_attention_heads": 4}
_MIXED = {"layer_types": ["conv", "full_attention"], "num_key_value_heads": 2}


def model_of(model_type: str, **settings: Any) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = AutoConfig.for_model(model_type, vocab_size=40, **settings)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
        ("opt", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "word_embed_proj_dim": 32}),
        ("gpt_neox", _SIZES),
        ("falcon", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}),
        ("gemma", {**_SIZES, "num_key_value_heads": 2, "head_dim": 8}),
        ("mixtral", {**_SIZES, "num_key_value_heads": 2, "num_local_experts": 4}),
    ],
)
def test_models_whose_cached_passes_equal_whole_ones_are_taken(model_type: str, settings: dict[str, Any]) -> None:
    model = model_of(model_type, **settings).train()
    check_model(model)
    assert model.training


@pytest.mark.parametrize(
    ("model_type", "settings", "message"),
    [
        ("bert", _SIZES, "logits depend on what shares a pass"),  # not causal
        ("roberta", {**_SIZES, "is_decoder": True}, "logits depend"),  # a head with layers of its own
        ("lfm2", {**_SIZES, **_MIXED}, "reading a few tokens failed|logits depend"),  # convolutions
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 2}, "reading a few tokens failed"),  # recurrent
        ("recurrent_gemma", {**_SIZES, "lru_width": 32}, "reading a few tokens failed|logits depend"),
        ("bart", {**_ENCODER_DECODER, "decoder_ffn_dim": 48}, "reading a few tokens failed"),  # no position ids
        (
            "falcon",
            {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True},
            "failed|depend",
        ),
        ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, "failed|depend"),  # alibi
    ],
)
def test_other_models_are_refused_by_name(model_type: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^a {model_type} model as a target: .*({message}).* expected a causal"):
        check_model(model_of(model_type, **settings))


def test_a_target_is_checked_when_it_is_built() -> None:
    with pytest.raises(InputError, match="a bert model as a target"):
        TargetRecommender(SemanticIDVocabulary((5, 6)), {"model_type": "bert", **_SIZES})
