from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.targets import build_backbone
from padrec.targets.residual_dropout import add_residual_dropout
from tests.tiny_training import tiny_backbone

_TOKENS = torch.tensor([[1, 4, 9, 15, 3, 5]])


def target(probability: float, model_type: str = "llama", **settings: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = build_backbone(tiny_backbone(model_type, **settings), SemanticIDVocabulary((5, 6, 7)))
    add_residual_dropout(model, probability)
    return model


def logits(model: PreTrainedModel) -> Tensor:
    torch.manual_seed(1)
    with torch.no_grad():
        result: Tensor = model(input_ids=_TOKENS, use_cache=False).logits
    return result


@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
def test_dropout_acts_in_training_alone_and_leaves_the_weights(model_type: str) -> None:
    plain, dropped = target(0.0, model_type), target(0.3, model_type)
    assert set(dropped.state_dict()) == set(plain.state_dict())
    assert torch.equal(logits(dropped.eval()), logits(plain.eval()))
    assert torch.equal(logits(plain.train()), logits(plain.eval()))
    assert not torch.allclose(logits(dropped.train()), logits(plain))


def test_dropout_is_in_the_embeddings_and_in_what_each_layer_adds() -> None:
    seen: list[Tensor] = []

    def keep(module: nn.Module, arguments: object, output: Tensor | tuple[Tensor, ...]) -> None:
        seen.append(output if isinstance(output, Tensor) else output[0])

    model = target(0.5, hidden_size=64)
    layers = model.base_model.get_submodule("layers")
    modules = [model.get_input_embeddings()]
    modules += [layers.get_submodule(f"{layer}.{block}") for layer in (0, 1) for block in ("self_attn", "mlp")]
    for module in modules:
        module.register_forward_hook(keep)  # behind the dropout's own
    logits(model.train())
    assert len(seen) == len(modules)
    for output in seen:
        assert 0.35 < float((output == 0).float().mean()) < 0.65


@pytest.mark.parametrize("probability", [-0.1, 1.0])
def test_a_wrong_probability_is_refused(probability: float) -> None:
    with pytest.raises(InputError, match=f"dropout {probability}: expected at least 0 and less than 1"):
        target(probability)


def test_layers_of_another_build_are_refused() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = build_backbone({"model_type": "gpt_neox", **sizes}, SemanticIDVocabulary((5, 6, 7)))
    with pytest.raises(InputError, match="dropout in a gpt_neox: expected a model whose layers have self_attn and mlp"):
        add_residual_dropout(model, 0.1)
