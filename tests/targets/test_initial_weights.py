"""Targets that start from a pretrained language model."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from padrec.catalog import InputError
from padrec.data import PromptTemplate, SemanticIDDataModule
from padrec.decoding import BeamDecoder
from padrec.targets import PretrainedModel, TargetRecommender, TargetWeights, fingerprint
from tests.tiny_language_model import ITEM, TEXT, save_tiny_language_model, save_tiny_tokenizer
from tests.tiny_training import first_prompts, quiet_trainer, tiny_data

_TIED = {"tie_word_embeddings": True}
_MODELS = [("qwen2", {}), ("llama", _TIED), ("gpt_neox", {})]


def text_data(folder: Path, **arguments: Any) -> SemanticIDDataModule:
    return tiny_data(prompt=PromptTemplate(str(folder), TEXT, ITEM, max_title_tokens=4), **arguments)


def recommender(folder: Path, data: SemanticIDDataModule, **arguments: Any) -> TargetRecommender:
    given = {"catalog": data.catalog, "list_length": data.list_length, "warmup_steps": 1, **arguments}
    start = PretrainedModel(str(folder), given.pop("lora", None))
    return TargetRecommender(data.vocabulary, initial_weights=start, **given)


def trained(folder: Path, data: SemanticIDDataModule, **arguments: Any) -> TargetRecommender:
    """After three steps, with its checkpoint at `target.ckpt`."""
    target = recommender(folder, data, learning_rate=0.01, **arguments)
    trainer = quiet_trainer(folder, max_steps=3, limit_val_batches=0)
    trainer.fit(target, datamodule=data)
    trainer.save_checkpoint(folder / "target.ckpt")
    return target


def tables(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    embedding: Any = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    return embedding.weight, head.weight


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_language_model(tmp_path_factory.mktemp("language") / "model")


@pytest.fixture
def own_folder(folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(folder, tmp_path / "model"))


@pytest.mark.parametrize(("model_type", "settings"), _MODELS)
def test_the_vocabulary_is_appended_to_the_pretrained_one(
    model_type: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    folder = save_tiny_language_model(tmp_path / "model", model_type, **settings)
    before = AutoModelForCausalLM.from_pretrained(folder)
    data = text_data(folder)
    target, again = recommender(folder, data), recommender(folder, data)
    n_text, vocabulary = data.vocabulary.text_tokens, data.vocabulary
    for old, new, twin in zip(*map(tables, (before, target.backbone, again.backbone)), strict=True):
        assert new.shape == (vocabulary.size, old.shape[1])
        assert torch.equal(new[:n_text], old[:n_text])
        assert torch.equal(new, twin)
        added = new[n_text + 2 :]
        assert len(added.unique(dim=0)) == len(added)
        spread = old[:n_text].std(0) / len(added) ** 0.5
        assert ((added.mean(0) - old[:n_text].mean(0)).abs() < 5 * spread).all()
        assert 0.7 < float(added.std(0).mean() / old[:n_text].std(0).mean()) < 1.3
    embedding, head = tables(target.backbone)
    assert torch.equal(embedding[vocabulary.bos_token], embedding[1])  # its own token for the beginning
    assert (head is embedding) == target.backbone.config.tie_word_embeddings == bool(settings)
    text = torch.arange(n_text)[None]
    with torch.no_grad():
        expected = before(input_ids=text).logits[..., :n_text]
        torch.testing.assert_close(target.backbone(input_ids=text).logits[..., :n_text], expected)
    config, generation = target.backbone.config, target.backbone.generation_config
    assert generation is not None
    specials = vocabulary.pad_token, vocabulary.bos_token, vocabulary.eos_token
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == specials
    assert generation.eos_token_id == vocabulary.eos_token


@pytest.mark.parametrize(("model_type", "settings"), _MODELS)
def test_all_weights_are_trained_and_a_checkpoint_needs_no_pretrained_model(
    model_type: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    folder = save_tiny_language_model(tmp_path / "model", model_type, attention_dropout=0.1, **settings)
    data = text_data(folder)
    before = recommender(folder, data).backbone.state_dict()
    target = trained(folder, data)
    unchanged = [name for name, weight in target.backbone.state_dict().items() if torch.equal(weight, before[name])]
    assert unchanged == []
    target.save_pretrained(folder / "saved")
    (folder / "model.safetensors").unlink()
    for path in ("target.ckpt", "saved"):
        found = TargetRecommender.load(folder / path)
        assert found.fingerprint() == target.fingerprint()
        assert found.vocabulary.fingerprint == data.vocabulary.fingerprint
        assert found.backbone.config.attention_dropout == 0.1


def test_settings_that_transformers_does_not_know_are_left_out(own_folder: Path) -> None:
    config = json.loads((own_folder / "config.json").read_text())
    (own_folder / "config.json").write_text(json.dumps({**config, "trained_by": "somebody"}))
    target = trained(own_folder, text_data(own_folder))
    assert TargetRecommender.load(own_folder / "target.ckpt").fingerprint() == target.fingerprint()


@pytest.mark.parametrize(("model_type", "settings"), _MODELS)
def test_adapters_train_few_weights_and_are_merged(model_type: str, settings: dict[str, Any], tmp_path: Path) -> None:
    folder = save_tiny_language_model(tmp_path / "model", model_type, **settings)
    data = text_data(folder)
    before = {name: weight.clone() for name, weight in recommender(folder, data).backbone.state_dict().items()}
    target = trained(folder, data, lora={"r": 2})
    checkpoint = torch.load(folder / "target.ckpt", weights_only=True)
    new_rows = (1 if settings else 2) * (data.vocabulary.size - data.vocabulary.text_tokens) * 16
    stored = {name: weight.numel() for name, weight in checkpoint["state_dict"].items()}
    assert sum(stored.values()) - sum(n for name, n in stored.items() if "lora" in name) in (new_rows, 2 * new_rows)
    assert all("lora" in name or "trainable_tokens" in name for name in stored)
    loaded = TargetRecommender.load(folder / "target.ckpt")
    target.save_pretrained(folder / "saved")
    saved = TargetRecommender.load(folder / "saved")
    tokens = first_prompts(data).tokens
    with torch.no_grad():
        expected = target.backbone.eval()(input_ids=tokens).logits
    for found in (loaded, saved):
        assert type(found.backbone) is type(target.backbone)
        assert all(weight.requires_grad for weight in found.parameters())
        assert found.backbone.state_dict().keys() == before.keys()
        assert found.fingerprint() == target.fingerprint()
        with torch.no_grad():
            torch.testing.assert_close(found.backbone.eval()(input_ids=tokens).logits, expected, rtol=1e-4, atol=1e-4)
    n_text = data.vocabulary.text_tokens
    for old, new in zip(tables(recommender(folder, data).backbone), tables(loaded.backbone), strict=True):
        assert torch.equal(new[:n_text], old[:n_text])
        assert not torch.equal(new[n_text:], old[n_text:])
    moved = {name for name, weight in loaded.backbone.state_dict().items() if not torch.equal(weight, before[name])}
    assert any("layers" in name for name in moved)
    assert not any("norm" in name for name in moved)


def test_chosen_modules_alone_are_adapted(folder: Path, tmp_path: Path) -> None:
    data = text_data(folder)
    target = recommender(folder, data, lora={"target_modules": ["q_proj", "down_proj"], "lora_dropout": 0.1})
    assert all(module.training for module in target.modules())  # dropout included
    adapted = {name.split(".")[-4] for name, weight in target.named_parameters() if "lora_" in name}
    assert adapted == {"q_proj", "down_proj"}
    undecayed = {id(parameter) for module in target.undecayed_modules() for parameter in module.parameters()}
    rows = [parameter for name, parameter in target.named_parameters() if "trainable_tokens" in name]
    assert rows
    assert all(id(parameter) in undecayed for parameter in rows)


def test_adapters_of_another_pretrained_model_are_refused(own_folder: Path) -> None:
    trained(own_folder, text_data(own_folder), lora={})
    weights = load_file(own_folder / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, own_folder / "model.safetensors", metadata={"format": "pt"})
    changed = fingerprint(AutoModelForCausalLM.from_pretrained(own_folder))
    with pytest.raises(InputError, match=f"with fingerprint {changed}.* expected the same pretrained model"):
        TargetRecommender.load(own_folder / "target.ckpt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lora": {"rank": 8}}, "lora: unknown setting rank, expected some of r, lora_alpha"),
        ({"lora": {"r": 0}}, "lora: peft cannot adapt the model with .*'r': 0"),
        ({"lora": {"r": "big"}}, "lora: peft cannot adapt the model with .*'r': 'big'"),
        ({"lora": {"target_modules": ["q_proj", "c_attn"]}}, "no linear layer c_attn, expected all-linear or .*q_proj"),
        ({"lora": {"target_modules": ["lm_head"]}}, "no linear layer lm_head"),
        ({"lora": {"target_modules": "q_proj"}}, "target_modules is 'q_proj', expected all-linear or a list of"),
        ({"backbone": {"hidden_size": 64}}, "hidden_size is 16, but backbone asks for 64: leave backbone out"),
        ({"backbone": {"model_type": "llama"}}, "model_type is 'qwen2', but backbone asks for 'llama'"),
    ],
)
def test_wrong_settings_are_refused(arguments: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(InputError, match=message):
        recommender(folder, text_data(folder), **arguments)


def test_settings_that_the_model_has_may_be_given(folder: Path) -> None:
    recommender(folder, text_data(folder), backbone={"model_type": "qwen2", "hidden_size": 16})


def test_what_is_no_language_model_is_refused(own_folder: Path, tmp_path: Path) -> None:
    data = text_data(own_folder)
    with pytest.raises(InputError, match="no such folder, expected a folder or the hub name"):
        recommender(tmp_path / "absent", data)
    with pytest.raises(InputError, match=r"no config\.json, expected the folder of a pretrained language model"):
        recommender(tmp_path, data)
    weights = load_file(own_folder / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    lacking = {key: weight for key, weight in weights.items() if key != name}
    save_file(lacking, own_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"weights missing: {name}; expected those of a causal language model"):
        recommender(own_folder, data)
    (own_folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="the weights cannot be read"):
        recommender(own_folder, data)
    (own_folder / "config.json").write_text(json.dumps({"model_type": "vit"}))  # an image model
    with pytest.raises(InputError, match="the weights cannot be read"):
        recommender(own_folder, text_data(own_folder))


def test_tokenizer_and_model_have_to_belong_together(own_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    save_tiny_tokenizer(other, added=("lamp",))
    with pytest.raises(InputError, match="its tokenizer is not that of the data's prompt template"):
        recommender(own_folder, text_data(other))
    with pytest.raises(InputError, match="the data have no text tokens, expected a prompt template"):
        recommender(own_folder, tiny_data())
    save_tiny_tokenizer(own_folder, added=tuple(f"word{number}" for number in range(30)))
    with pytest.raises(InputError, match=r"320 embeddings, expected one for each of 3\d\d text tokens"):
        recommender(own_folder, text_data(own_folder))


def test_a_target_starts_from_something() -> None:
    data = tiny_data()
    with pytest.raises(InputError, match="neither backbone nor initial_weights: expected"):
        TargetRecommender(data.vocabulary)


@pytest.mark.parametrize("lora", [None, {"r": 2}])
def test_training_goes_on_from_a_target_that_was_pretrained(
    lora: dict[str, Any] | None, own_folder: Path, tmp_path: Path
) -> None:
    data = text_data(own_folder)
    first = trained(own_folder, data, lora=lora)
    start = TargetWeights(str(own_folder / "target.ckpt"))
    second = TargetRecommender(data.vocabulary, initial_weights=start, dropout=0.1)
    assert second.fingerprint() == first.fingerprint()
    trainer = quiet_trainer(tmp_path, max_steps=1, limit_val_batches=0)
    trainer.fit(second, datamodule=data)
    assert second.fingerprint() != first.fingerprint()
    trainer.save_checkpoint(tmp_path / "second.ckpt")
    assert TargetRecommender.load(tmp_path / "second.ckpt").fingerprint() == second.fingerprint()


@pytest.mark.parametrize("lora", [None, {"r": 2}])
def test_a_pretrained_model_takes_the_means_against_overfitting(lora: dict[str, Any] | None, own_folder: Path) -> None:
    data = text_data(own_folder)
    batch = next(iter(data.train_dataloader()))
    decoder = BeamDecoder(beam_width=5)
    target = recommender(own_folder, data, lora=lora, dropout=0.5, label_smoothing=0.1, decoder=decoder)
    plain = recommender(own_folder, data, lora=lora)
    embed, plainly = (model.backbone.get_input_embeddings() for model in (target, plain))
    assert 0.35 < float((embed(batch.tokens) == 0).float().mean()) < 0.65
    assert not plainly(batch.tokens).eq(0).any()
    prompts = first_prompts(data)
    expected = recommender(own_folder, data, decoder=decoder).predict_step(prompts, 0)
    assert torch.equal(target.predict_step(prompts, 0).leaves, expected.leaves)

    def fingerprint_after_training(dropout: float, label_smoothing: float) -> str:
        torch.manual_seed(0)  # of the adapters' first weights
        return trained(own_folder, data, lora=lora, dropout=dropout, label_smoothing=label_smoothing).fingerprint()

    both = fingerprint_after_training(0.5, 0.1)
    assert fingerprint_after_training(0.5, 0.1) == both
    assert TargetRecommender.load(own_folder / "target.ckpt").fingerprint() == both
    assert len({both, fingerprint_after_training(0.0, 0.1), fingerprint_after_training(0.5, 0.0)}) == 3
