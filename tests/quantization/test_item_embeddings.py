import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from padrec.catalog import InputError
from padrec.quantization import EmbeddingFile, ItemEmbeddings
from tests.damage import with_a_flipped_bit


def three_items(dimension: int = 2) -> ItemEmbeddings:
    return ItemEmbeddings(["x", "y", "z"], torch.arange(3.0 * dimension).view(3, dimension), source="shop")


def test_saved_embeddings_load_as_they_were(tmp_path: Path) -> None:
    three_items().save(tmp_path / "new" / "items.safetensors")
    loaded = EmbeddingFile(str(tmp_path / "new" / "items.safetensors")).embed()
    assert loaded.keys == ("x", "y", "z")
    assert torch.equal(loaded.vectors, three_items().vectors)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    three_items().save(tmp_path / "items.safetensors")
    with pytest.raises(InputError, match=r"items.safetensors: there already"):
        three_items(4).save(tmp_path / "items.safetensors")


def test_keys_that_a_kill_left_without_vectors_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "items.keys.json").write_text('["old"]')
    three_items().save(tmp_path / "items.safetensors")
    assert EmbeddingFile(str(tmp_path / "items.safetensors")).embed().keys == ("x", "y", "z")


@pytest.mark.parametrize("name", ["items.safetensors", "items.keys.json"])
def test_a_flipped_bit_is_noticed(name: str, tmp_path: Path) -> None:
    three_items().save(tmp_path / "items.safetensors")
    (tmp_path / name).write_bytes(with_a_flipped_bit((tmp_path / name).read_bytes(), 0.6))
    with pytest.raises(InputError, match=r"damaged|not the keys that were written|cannot be read"):
        EmbeddingFile(str(tmp_path / "items.safetensors")).embed()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_of_numpy_load_with_keys_from_anywhere(dtype: type, tmp_path: Path) -> None:
    np.save(tmp_path / "items.npy", three_items().vectors.numpy().astype(dtype))
    (tmp_path / "names.json").write_text('["x", "y", "z"]')
    loaded = EmbeddingFile(str(tmp_path / "items.npy"), keys=str(tmp_path / "names.json")).embed()
    assert loaded.vectors.dtype == torch.float32
    assert torch.equal(loaded.vectors, three_items().vectors)


def test_a_pickled_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "items.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"items.npy: cannot be read as an array of numbers"):
        EmbeddingFile(str(tmp_path / "items.npy")).embed()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (None, r"items.keys.json: no such file, expected a JSON list of item keys"),
        ("[1, 2, 3]", r"expected a JSON list of item keys, all of them strings$"),
        ("[", r"invalid JSON"),
        ('["x"]', r"1 keys for 3 vectors, expected one for each$"),
        ('["x", "y", "x"]', r"item key 'x' occurs twice, expected every key once$"),
    ],
)
def test_wrong_keys_are_refused(keys: str | None, message: str, tmp_path: Path) -> None:
    save_file({"embeddings": three_items().vectors}, tmp_path / "items.safetensors")
    if keys is not None:
        (tmp_path / "items.keys.json").write_text(keys)
    with pytest.raises(InputError, match=message):
        EmbeddingFile(str(tmp_path / "items.safetensors")).embed()


def test_another_tensor_is_named_with_those_there_are(tmp_path: Path) -> None:
    save_file({"weight": three_items().vectors}, tmp_path / "items.safetensors")
    (tmp_path / "items.keys.json").write_text(json.dumps(["x", "y", "z"]))
    with pytest.raises(InputError, match=r"no tensor 'embeddings', found weight$"):
        EmbeddingFile(str(tmp_path / "items.safetensors")).embed()
    loaded = EmbeddingFile(str(tmp_path / "items.safetensors"), tensor="weight").embed()
    assert torch.equal(loaded.vectors, three_items().vectors)


@pytest.mark.parametrize(
    ("name", "message"),
    [("gone.npy", "no such file"), ("text.csv", "ends in '.csv'"), ("text.safetensors", "cannot be read as safetens")],
)
def test_other_files_are_refused(name: str, message: str, tmp_path: Path) -> None:
    for text in ("text.csv", "text.safetensors"):
        (tmp_path / text).write_text("1,2,3")
    with pytest.raises(InputError, match=message):
        EmbeddingFile(str(tmp_path / name)).embed()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_refused_with_its_item(value: float) -> None:
    vectors = torch.zeros(3, 2)
    vectors[1, 1] = value
    with pytest.raises(InputError, match=r"^shop: the vector of item 'y' has a value that is not finite$"):
        ItemEmbeddings(["x", "y", "z"], vectors, source="shop")


@pytest.mark.parametrize("vectors", [torch.zeros(3), torch.zeros(0, 2), torch.zeros(3, 2, dtype=torch.long)])
def test_what_is_no_table_of_numbers_is_refused(vectors: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"^shop: .* expected floats \[items, dimensions\]$"):
        ItemEmbeddings(["x"] * len(vectors), vectors, source="shop")
