import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.targets import build_backbone, fingerprint, load_backbone, save_backbone, to_precision
from tests.tiny_training import tiny_backbone

VOCABULARY = SemanticIDVocabulary((5, 6, 7))


def backbone(model_type: str = "llama", **settings: Any) -> PreTrainedModel:
    model: PreTrainedModel = build_backbone(tiny_backbone(model_type, **settings), VOCABULARY).eval()
    return model


def logits(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        result: Tensor = model(input_ids=torch.arange(VOCABULARY.size)[None], use_cache=False).logits
    return result


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gpt_neox"])
def test_any_causal_language_model_gets_the_vocabularys_tokens(model_type: str) -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    if model_type == "qwen3":
        sizes["num_key_value_heads"] = 1
    model = build_backbone({"model_type": model_type, **sizes}, VOCABULARY)
    assert model.config.model_type == model_type
    assert logits(model).shape == (1, 22, 22)
    assert (model.config.pad_token_id, model.config.bos_token_id, model.config.eos_token_id) == (0, 1, 2)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "nonsense"}, "model_type 'nonsense', expected one that transformers knows"),
        ({"hidden_size": 16}, "model_type None, expected one that transformers knows"),
        ({"model_type": "llama", "hiden_size": 16, "n_head": 3}, "llama has no setting hiden_size, n_head"),
        (tiny_backbone(hidden_size="wide"), "cannot build a llama of these settings .*hidden_size"),
        (tiny_backbone(num_hidden_layers=0), "num_hidden_layers is 0, expected at least 1"),
        ({"model_type": "gpt2", "n_head": 0}, "is 0, expected at least 1"),
        (tiny_backbone(num_attention_heads=4, num_key_value_heads=3), "num_key_value_heads is 3, .* divisor of the 4"),
        (tiny_backbone(attention_dropout=2.0), "attention_dropout is 2.0, expected at least 0 and less than 1"),
        (tiny_backbone(rms_norm_eps=float("nan")), "rms_norm_eps is nan, expected a finite number"),
        (tiny_backbone(hidden_act="nonsense"), "cannot build a llama of these settings .*nonsense"),
    ],
)
def test_a_wrong_configuration_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"(?s){message}"):
        build_backbone(config, VOCABULARY)


@pytest.mark.parametrize("setting", ["vocab_size", "pad_token_id", "bos_token_id", "eos_token_id"])
def test_what_the_vocabulary_decides_must_not_be_set(setting: str) -> None:
    with pytest.raises(InputError, match=f"{setting}.*follows from the vocabulary"):
        build_backbone({**tiny_backbone(), setting: 7}, VOCABULARY)


def test_fingerprint_tells_weights_apart() -> None:
    model = backbone()
    before = fingerprint(model)
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            parameter.view(-1)[-1] += 1e-3
        assert fingerprint(model) != before, name
        with torch.no_grad():
            parameter.view(-1)[-1] -= 1e-3
        before = fingerprint(model)


def test_fingerprint_belongs_to_the_weights_alone() -> None:
    model = backbone()
    before = fingerprint(model)
    assert len(before) == 16
    assert fingerprint(model.train().requires_grad_(False)) == before
    logits(model)
    assert fingerprint(model) == before
    twin = backbone()
    assert fingerprint(twin) != before
    twin.load_state_dict(model.state_dict())
    assert fingerprint(twin) == before


def test_fingerprint_notices_every_changed_value_of_a_large_weight() -> None:
    model = build_backbone(tiny_backbone(hidden_size=64, intermediate_size=512), VOCABULARY)
    before = fingerprint(model)
    weight = model.get_parameter("model.layers.0.mlp.up_proj.weight").data.view(-1)
    for index in torch.randperm(len(weight), generator=torch.Generator().manual_seed(0))[:50]:
        value = weight[index].clone()
        weight[index] += 1e-3
        assert fingerprint(model) != before
        weight[index] = value
    assert fingerprint(model) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_rotary_frequencies_stay_exact_in_every_precision(dtype: torch.dtype) -> None:
    model = backbone()
    exact = {name: buffer.clone() for name, buffer in model.named_buffers() if "inv_freq" in name}
    assert exact
    to_precision(model, dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    found = dict(model.named_buffers())
    for name, buffer in exact.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], buffer)
    assert logits(model).dtype == dtype


def test_precision_of_a_module_without_rotary_frequencies() -> None:
    module = nn.Linear(2, 2)
    to_precision(module, torch.bfloat16)
    assert module.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "model",
    [
        backbone(),
        backbone("qwen3", tie_word_embeddings=True),
        backbone(rope_parameters={"rope_type": "default", "rope_theta": 77.0}, attention_dropout=0.1),
    ],
)
def test_a_saved_model_is_read_back(model: PreTrainedModel, tmp_path: Path) -> None:
    save_backbone(model, VOCABULARY, tmp_path / "new" / "folder")
    found, vocabulary = load_backbone(tmp_path / "new" / "folder")
    assert vocabulary.fingerprint == VOCABULARY.fingerprint
    assert fingerprint(found) == fingerprint(model)
    assert torch.equal(logits(found.eval()), logits(model))


@pytest.mark.parametrize("name", ["config.json", "vocabulary.json"])
def test_a_missing_or_malformed_description_is_refused(name: str, tmp_path: Path) -> None:
    save_backbone(backbone(), VOCABULARY, tmp_path)
    (tmp_path / name).write_text("{")
    with pytest.raises(InputError, match=f"{name}: no valid JSON"):
        load_backbone(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"no {name}, expected a target folder written by save_pretrained"):
        load_backbone(tmp_path)


def test_sizes_that_no_machine_holds_are_refused_with_both_numbers() -> None:
    with pytest.raises(InputError, match=r"over 4,000,000,00\d tokens .* take [\d,]+ GB, expected at most the \d"):
        build_backbone(tiny_backbone(hidden_size=4096), SemanticIDVocabulary((2_000_000_000, 2_000_000_000)))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("vocabulary.json", {"codebook_sizes": "abc"}, r"vocabulary\.json: .* expected the arguments of a vocabulary"),
        ("vocabulary.json", {"colour": 1}, r"vocabulary\.json: .* expected the arguments of a vocabulary"),
        ("vocabulary.json", {"codebook_sizes": [9, 9, 9]}, r"a model of \d+ tokens, expected the 31 of vocabulary"),
        ("config.json", {"hidden_size": "x"}, "the weights cannot be read"),
        ("config.json", {"num_attention_heads": 0}, "the weights cannot be read"),
    ],
)
def test_a_description_of_something_else_is_refused(
    name: str, change: dict[str, object], message: str, tmp_path: Path
) -> None:
    save_backbone(backbone(), VOCABULARY, tmp_path)
    description = json.loads((tmp_path / name).read_text())
    (tmp_path / name).write_text(json.dumps(description | change))
    with pytest.raises(InputError, match=message):
        load_backbone(tmp_path)


def test_missing_or_broken_weights_are_refused(tmp_path: Path) -> None:
    save_backbone(backbone(), VOCABULARY, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lacking = {name: weight for name, weight in weights.items() if "up_proj" not in name}
    save_file(lacking, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"weights missing or unknown: model\.layers\.0\.mlp\.up_proj\.weight"):
        load_backbone(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match="the weights cannot be read"):
        load_backbone(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="the weights cannot be read"):
        load_backbone(tmp_path)


def test_the_vocabulary_lies_beside_the_weights(tmp_path: Path) -> None:
    vocabulary = SemanticIDVocabulary((5, 6, 7), separator=False, shared_codes=True)
    save_backbone(build_backbone(tiny_backbone(), vocabulary), vocabulary, tmp_path)
    assert json.loads((tmp_path / "vocabulary.json").read_text()) == vocabulary.to_dict()
