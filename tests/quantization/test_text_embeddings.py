import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from padrec.catalog import InputError
from padrec.data import ItemJSON
from padrec.quantization import TextEmbeddings
from padrec.quantization import text_embeddings as module
from padrec.quantization.text_embeddings import encode_texts, load_encoder, masked_mean
from tests.damage import with_a_flipped_bit
from tests.quantization.tiny_encoder import save_tiny_encoder
from tests.tiny_language_model import save_tiny_language_model

TEXTS = {"i1": "red lamp", "i2": "blue", "i3": "old red vase small", "i4": "new lamp", "i5": "big"}


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return save_tiny_encoder(tmp_path / "encoder")


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "shop.item.json"
    path.write_text(json.dumps({key: {"title": text} for key, text in TEXTS.items()}))
    return path


def source(items: Path, encoder: Path, **arguments: Any) -> TextEmbeddings:
    settings = {"cache": str(items.parent / "cache"), "batch_size": 2, "part_size": 2, "device": "cpu", **arguments}
    return TextEmbeddings(ItemJSON(str(items)), str(encoder), **settings)


@torch.no_grad()
def alone(text: str, encoder: Path, max_tokens: int = 256) -> Tensor:
    """The mean of one text's hidden states, without padding."""
    model, tokenizer = load_encoder(str(encoder))
    tokens = tokenizer(text, truncation=True, max_length=max_tokens, return_tensors="pt")["input_ids"]
    states: Tensor = model(input_ids=tokens).last_hidden_state
    return states[0].mean(0)


def test_vectors_equal_those_of_each_text_alone(items: Path, encoder: Path) -> None:
    found = source(items, encoder).embed()
    assert found.keys == tuple(TEXTS)
    assert found.texts == tuple(TEXTS.values())
    torch.testing.assert_close(found.vectors, torch.stack([alone(text, encoder) for text in TEXTS.values()]))


@pytest.mark.parametrize(("kind", "side"), [("gpt2", "left"), ("t5", "right"), ("roberta", "left")])
def test_vectors_do_not_depend_on_neighbours(kind: str, side: str, items: Path, tmp_path: Path) -> None:
    encoder = save_tiny_encoder(tmp_path / kind, kind=kind, padding_side=side)
    found = source(items, encoder, batch_size=5, max_tokens=200).embed()
    torch.testing.assert_close(found.vectors, torch.stack([alone(text, encoder) for text in TEXTS.values()]))


def test_a_tokenizer_needs_no_padding_token(items: Path, tmp_path: Path) -> None:
    encoder = save_tiny_language_model(tmp_path / "gpt", "gpt2")
    description = json.loads((encoder / "tokenizer_config.json").read_text())
    (encoder / "tokenizer_config.json").write_text(json.dumps(description | {"eos_token": None}))
    found = source(items, encoder).embed()
    torch.testing.assert_close(found.vectors, torch.stack([alone(text, encoder) for text in TEXTS.values()]))


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_more_tokens_than_positions_are_refused(kind: str, items: Path, tmp_path: Path) -> None:
    encoder = save_tiny_encoder(tmp_path / kind, kind=kind)
    with pytest.raises(InputError, match=f"{kind}: cannot encode 257 tokens .*: lower max_tokens"):
        source(items, encoder, max_tokens=257).embed()


def test_missing_weights_are_refused_unless_unused(items: Path, encoder: Path) -> None:
    file = encoder / "model.safetensors"
    weights = {name: weight for name, weight in load_file(file).items() if not name.startswith("pooler.")}
    save_file(weights, file, {"format": "pt"})
    source(items, encoder).embed()
    weights.pop("encoder.layer.0.output.dense.bias")
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(InputError, match=r"weights missing: encoder\.layer\.0\.output\.dense\.bias; expected all"):
        source(items, encoder, cache=str(items.parent / "other")).embed()


def test_long_texts_are_cut_and_prompts_come_first(items: Path, encoder: Path) -> None:
    found = source(items, encoder, max_tokens=4, prompt="old ").embed()
    expected = [alone("old " + text, encoder, max_tokens=4) for text in TEXTS.values()]
    torch.testing.assert_close(found.vectors, torch.stack(expected))


def test_the_mean_leaves_padding_out() -> None:
    states = torch.tensor([[[1.0], [3.0], [100.0]], [[5.0], [5.0], [5.0]]])
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])
    assert masked_mean(states, mask).tolist() == [[2.0], [0.0]]


def test_an_interrupted_run_goes_on_after_what_it_has_written(
    items: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    limit = 4

    def recorded(texts: list[str], *arguments: Any) -> Tensor:
        if texts[0] not in TEXTS.values():  # the trial of a new encoder
            return encode_texts(texts, *arguments)
        if len(encoded) >= limit:
            raise KeyboardInterrupt
        encoded.extend(texts)
        return encode_texts(texts, *arguments)

    monkeypatch.setattr(module, "encode_texts", recorded)
    with pytest.raises(KeyboardInterrupt):
        source(items, encoder).embed()
    limit = 100
    found = source(items, encoder).embed()
    assert encoded == list(TEXTS.values())
    torch.testing.assert_close(found.vectors, torch.stack([alone(text, encoder) for text in TEXTS.values()]))


def test_a_whole_cache_needs_no_encoder(items: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = source(items, encoder).embed()
    monkeypatch.setattr(module, "load_encoder", None)
    assert torch.equal(source(items, encoder).embed().vectors, first.vectors)


def test_the_cache_of_another_length_encoder_or_texts_is_refused(items: Path, encoder: Path, tmp_path: Path) -> None:
    source(items, encoder).embed()
    with pytest.raises(InputError, match=r"cache: embeddings of another max_tokens, expected those of this config"):
        source(items, encoder, max_tokens=3).embed()
    other = save_tiny_encoder(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match=r"another encoder, encoder_version, expected"):
        source(items, other).embed()
    items.write_text(json.dumps({"i1": {"title": "big vase"}}))
    with pytest.raises(InputError, match=r"another texts, texts_sha256, expected"):
        source(items, encoder).embed()


def test_a_retrained_encoder_in_the_same_place_is_another_one(items: Path, encoder: Path, tmp_path: Path) -> None:
    source(items, encoder).embed()
    retrained = save_tiny_encoder(tmp_path / "retrained", seed=1)
    (encoder / "model.safetensors").write_bytes((retrained / "model.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"embeddings of another encoder_version, expected"):
        source(items, encoder).embed()


def test_a_folder_of_other_files_is_no_cache(items: Path, encoder: Path) -> None:
    with pytest.raises(InputError, match=r"holds other files, expected a new or empty folder, or a cache$"):
        source(items, encoder, cache=str(encoder)).embed()


def test_a_damaged_part_is_named(items: Path, encoder: Path) -> None:
    source(items, encoder).embed()
    part = items.parent / "cache" / "part-00001.safetensors"
    part.write_bytes(with_a_flipped_bit(part.read_bytes()))
    with pytest.raises(InputError, match=r"part-00001.safetensors: damaged, .*; remove it to recompute it$"):
        source(items, encoder).embed()
    save_file({"embeddings": torch.ones(1, 8)}, part)
    with pytest.raises(InputError, match=r"part-00001.safetensors: .* expected 2 embeddings; remove it"):
        source(items, encoder).embed()


def test_what_a_killed_run_left_is_no_obstacle(items: Path, encoder: Path) -> None:
    left = items.parent / "cache" / "embeddings.json.partial"
    left.mkdir(parents=True)
    (left / "embeddings.json").write_text("{")
    source(items, encoder).embed()
    assert not left.exists()


def test_a_missing_encoder_is_named(items: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no tokenizer, expected a folder with one of"):
        source(items, tmp_path / "empty").embed()
