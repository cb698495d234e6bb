from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from transformers import PreTrainedModel

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.targets import build_backbone
from padrec.targets.decoder_layers import CompiledLayers, add_residual_dropout
from tests.stubs import CountedCompiler, tiny_target
from tests.tiny_training import tiny_backbone

_VOCABULARY = SemanticIDVocabulary((5, 6, 4))
_SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
_TOKENS = torch.tensor([[1, 4, 9, 15, 3, 5]])


def features(model: PreTrainedModel, batch: int, width: int) -> Tensor:
    tokens = torch.randint(4, _VOCABULARY.size, (batch, width), generator=torch.Generator().manual_seed(width))
    found: Tensor = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
    return found


def test_all_layers_and_sizes_share_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[fx.GraphModule] = []

    def compiler(graph: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=compiler))
    model = tiny_target(_VOCABULARY, model_type="qwen3", n_layers=3)
    add_residual_dropout(model, 0.5)  # which is off in evaluation mode, but hooks must not be in the way
    sizes = [(3, 7), (3, 16), (5, 31), (2, 2)]
    expected = [features(model, *size) for size in sizes]
    compiled = CompiledLayers(model)
    with compiled:
        first = features(model, *sizes[0])
        made = len(graphs)
        found = [first, *(features(model, *size) for size in sizes[1:])]
    assert 1 <= made == len(graphs)
    assert made < model.config.num_hidden_layers
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "gpt_neox"])
def test_layers_are_compiled_within_the_block_alone(model_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = CountedCompiler()
    monkeypatch.setattr(torch, "compile", compiler)
    model = build_backbone({"model_type": model_type, **_SIZES}, _VOCABULARY).eval()
    weights = set(model.state_dict())
    compiled = CompiledLayers(model)
    expected = features(model, 2, 5)
    assert compiler.calls == 0
    for _ in range(2):
        with compiled:
            torch.testing.assert_close(features(model, 2, 5), expected)
    assert compiler.calls == 2 * 3
    with pytest.raises(RuntimeError, match="in training"), compiled:
        raise RuntimeError("in training")
    torch.testing.assert_close(features(model, 2, 5), expected)
    assert compiler.calls == 2 * 3
    assert set(model.state_dict()) == weights


def test_a_model_without_layers_is_refused() -> None:
    model = build_backbone({"model_type": "llama", **_SIZES}, _VOCABULARY)
    del model.base_model.layers
    with pytest.raises(InputError, match="compile in a llama: expected a model with a list of decoder layers"):
        CompiledLayers(model)


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
        module.register_forward_hook(keep)  # after the dropout's own
    logits(model.train())
    assert len(seen) == len(modules)
    for output in seen:
        assert 0.35 < float((output == 0).float().mean()) < 0.65


def test_layers_of_another_build_are_refused() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = build_backbone({"model_type": "gpt_neox", **sizes}, SemanticIDVocabulary((5, 6, 7)))
    with pytest.raises(InputError, match="dropout in a gpt_neox: expected a model whose layers have self_attn and mlp"):
        add_residual_dropout(model, 0.1)
