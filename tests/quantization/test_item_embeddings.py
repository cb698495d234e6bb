import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from padrec.catalog import InputError
from padrec.quantization import ConcatenatedEmbeddings, EmbeddingFile, ItemEmbeddings


def three_items(dimension: int = 2) -> ItemEmbeddings:
    return ItemEmbeddings(["x", "y", "z"], torch.arange(3.0 * dimension).view(3, dimension), source="shop")


def test_saved_embeddings_load_as_they_were(tmp_path: Path) -> None:
    three_items().save(tmp_path / "new" / "items.safetensors")
    loaded = EmbeddingFile(str(tmp_path / "new" / "items.safetensors")).embed()
    assert loaded.keys == ("x", "y", "z")
    assert torch.equal(loaded.vectors, three_items().vectors)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    three_items().save(tmp_path / "items.safetensors")
    with pytest.raises(InputError, match=r"items.safetensors: there already, expected no such file$"):
        three_items(4).save(tmp_path / "items.safetensors")


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
        ItemEmbeddings.load(tmp_path / "items.npy")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (None, r"items.keys.json: no such file, expected a JSON list of item keys"),
        ("[1, 2, 3]", r"expected a JSON list of item keys, all of them strings$"),
        ("[", r"no valid JSON"),
        ('["x"]', r"1 keys for 3 vectors, expected one for each$"),
        ('["x", "y", "x"]', r"item key 'x' occurs twice, expected every key once$"),
    ],
)
def test_wrong_keys_are_refused(keys: str | None, message: str, tmp_path: Path) -> None:
    save_file({"embeddings": three_items().vectors}, tmp_path / "items.safetensors")
    if keys is not None:
        (tmp_path / "items.keys.json").write_text(keys)
    with pytest.raises(InputError, match=message):
        ItemEmbeddings.load(tmp_path / "items.safetensors")


def test_another_tensor_is_named_with_those_there_are(tmp_path: Path) -> None:
    save_file({"weight": three_items().vectors}, tmp_path / "items.safetensors")
    (tmp_path / "items.keys.json").write_text(json.dumps(["x", "y", "z"]))
    with pytest.raises(InputError, match=r"no tensor 'embeddings', found weight$"):
        ItemEmbeddings.load(tmp_path / "items.safetensors")
    loaded = ItemEmbeddings.load(tmp_path / "items.safetensors", tensor="weight")
    assert torch.equal(loaded.vectors, three_items().vectors)


@pytest.mark.parametrize(
    ("name", "message"),
    [("gone.npy", "no such file"), ("text.csv", "ends in '.csv'"), ("text.safetensors", "cannot be read as safetens")],
)
def test_other_files_are_refused(name: str, message: str, tmp_path: Path) -> None:
    for text in ("text.csv", "text.safetensors"):
        (tmp_path / text).write_text("1,2,3")
    with pytest.raises(InputError, match=message):
        ItemEmbeddings.load(tmp_path / name)


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


def test_concatenated_parts_have_the_length_of_their_weights_and_the_first_ones_order(tmp_path: Path) -> None:
    first = ItemEmbeddings(["x", "y"], torch.tensor([[3.0, 4.0], [0.0, 0.0]]), source="a")
    second = ItemEmbeddings(["y", "x"], torch.tensor([[2.0], [-7.0]]), source="b")
    first.save(tmp_path / "a.safetensors")
    second.save(tmp_path / "b.safetensors")
    parts = [EmbeddingFile(str(tmp_path / name)) for name in ("a.safetensors", "b.safetensors")]
    both = ConcatenatedEmbeddings(list(parts), weights=[1.0, 0.5]).embed()
    assert both.keys == ("x", "y")
    torch.testing.assert_close(both.vectors, torch.tensor([[0.6, 0.8, -0.5], [0.0, 0.0, 0.5]]))


def test_parts_of_different_items_are_refused(tmp_path: Path) -> None:
    for name, keys in (("a", ["x", "y"]), ("b", ["x", "w"])):
        ItemEmbeddings(keys, torch.ones(2, 1)).save(tmp_path / f"{name}.safetensors")
    parts = [EmbeddingFile(str(tmp_path / f"{name}.safetensors")) for name in "ab"]
    with pytest.raises(InputError, match=r"item 'w' is in one of them only, expected the same items$"):
        ConcatenatedEmbeddings(list(parts)).embed()


@pytest.mark.parametrize("weights", [[1.0, 1.0], [0.0]])
def test_weights_that_do_not_fit_are_refused(weights: list[float]) -> None:
    with pytest.raises(InputError, match=r"expected parts, a positive weight each$"):
        ConcatenatedEmbeddings([EmbeddingFile("a.npy")], weights)
