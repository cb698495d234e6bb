import json
from pathlib import Path

import pytest
import torch

from padrec.catalog import Catalog, InputError


@pytest.mark.parametrize("texts", [None, ["Lamp, “blue”", ""]])
def test_a_saved_catalog_loads_as_it_was(texts: list[str] | None, tmp_path: Path) -> None:
    catalog = Catalog(torch.tensor([[3, 300], [0, 1]]), ["lamp", "väse"], texts)
    catalog.save(tmp_path / "new" / "shop")
    loaded = Catalog.load(tmp_path / "new" / "shop")
    assert torch.equal(loaded.codes, catalog.codes)
    assert (loaded.keys, loaded.texts) == (catalog.keys, catalog.texts)
    assert loaded.source == str(tmp_path / "new" / "shop")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["shop"]


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "mine").touch()
    with pytest.raises(InputError, match=r"shop: there already, expected nothing or an empty folder"):
        Catalog(torch.tensor([[0]]), ["x"]).save(tmp_path / "shop")
    assert [path.name for path in (tmp_path / "shop").iterdir()] == ["mine"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"shop: cannot be written"):
        Catalog(torch.tensor([[0]]), ["x"]).save(tmp_path / "file" / "shop")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("codes.safetensors", None, r"no codes.safetensors, expected a folder written by Catalog.save$"),
        ("items.json", None, r"no items.json"),
        ("codes.safetensors", "text", r"codes.safetensors: not what was written"),
        ("padrec.sha256", "\x00", r"no , expected every file that padrec.sha256 names"),
        ("items.json", "[]", r"expected a JSON object with keys and texts"),
        ("items.json", json.dumps({"keys": [1], "texts": None}), r"expected keys and texts to be lists of strings"),
        ("items.json", json.dumps({"keys": ["x", "y"], "texts": None}), r"2 keys for 1 items"),
    ],
)
def test_a_damaged_folder_is_refused(name: str, content: str | None, message: str, tmp_path: Path) -> None:
    Catalog(torch.tensor([[0]]), ["x"]).save(tmp_path / "shop")
    if name == "items.json":  # as a program that writes no digests would have written it
        (tmp_path / "shop" / "padrec.sha256").unlink()
    (tmp_path / "shop" / name).unlink()
    if content is not None:
        (tmp_path / "shop" / name).write_text(content)
    with pytest.raises(InputError, match=message):
        Catalog.load(tmp_path / "shop")
