import pytest
import torch
from torch import nn

from padrec.catalog import SemanticIDVocabulary
from padrec.decoding import TransformersRunner
from padrec.targets import FrozenTarget
from tests.reference import forward
from tests.stubs import random_catalog, random_prompts, tiny_target

_VOCABULARY = SemanticIDVocabulary((5, 6, 7))


class Owner(nn.Module):
    """A module of its own weights that holds a frozen target, too."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.target = FrozenTarget(tiny_target(_VOCABULARY, seed=seed).requires_grad_(True).train(), "fingerprint")
        self.own = nn.Linear(2, 2)


def test_a_frozen_target_never_trains() -> None:
    owner = Owner().train()
    assert owner.own.training
    assert not any(module.training for module in owner.target.modules())
    assert not any(parameter.requires_grad for parameter in owner.target.parameters())


def test_weights_stay_out_of_the_state_dict() -> None:
    assert set(Owner().state_dict()) == {"own.weight", "own.bias"}


def test_loading_stays_strict_for_everything_else() -> None:
    owner, other = Owner(), Owner(seed=1)
    before = {name: weight.clone() for name, weight in other.target.model.state_dict().items()}
    state = owner.state_dict()
    other.load_state_dict(state)
    assert torch.equal(other.own.weight, owner.own.weight)
    for name, weight in other.target.model.state_dict().items():
        assert torch.equal(weight, before[name])
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "own\.bias"'):
        other.load_state_dict({"own.weight": state["own.weight"]})
    with pytest.raises(RuntimeError, match=r'Unexpected key\(s\) in state_dict: "more"'):
        other.load_state_dict({**state, "more": torch.zeros(1)})


@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
def test_features_embeddings_and_head_are_the_targets(model_type: str) -> None:
    model = tiny_target(_VOCABULARY, model_type=model_type)
    frozen = FrozenTarget(model, "fingerprint")
    tokens = [1, 4, 9, 15, 3, 5]
    logits, features = forward(model, tokens)
    padded = torch.tensor([[*tokens, 0, 0]])
    torch.testing.assert_close(frozen(padded)[0, :6], features)
    torch.testing.assert_close(frozen.logits(features), logits)
    torch.testing.assert_close(frozen.embed(padded)[0, 2], model.get_parameter("model.embed_tokens.weight")[9])


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gemma"])
def test_features_of_several_layers_are_those_that_drafts_read(model_type: str) -> None:
    model = tiny_target(_VOCABULARY, model_type=model_type, n_layers=3)
    prompts, layers = random_prompts(random_catalog((5, 6, 7), 9), _VOCABULARY, [2, 2]), (0, 2, 1, -1)
    _, expected = TransformersRunner(model).open(2, prompts.tokens.shape[1], layers).prefill(prompts)
    last, features = FrozenTarget(model, "fingerprint").features(prompts.tokens, layers)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)  # norms work in float32
    torch.testing.assert_close(last, features[..., -last.shape[-1] :], rtol=0, atol=0)
