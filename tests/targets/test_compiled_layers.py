"""Decoder layers are compiled in training, once for all of them, and nowhere else."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, fx
from transformers import PreTrainedModel

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.targets import build_backbone
from padrec.targets.compiled_layers import CompiledLayers
from padrec.targets.residual_dropout import add_residual_dropout
from tests.stubs import CountedCompiler, tiny_target

_VOCABULARY = SemanticIDVocabulary((5, 6, 4))
_SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}


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
