from pathlib import Path

import pytest
import torch

from padrec.catalog import Catalog, InputError
from padrec.data.readers.semantic_id_index import read_index, write_index


def test_a_written_index_reads_as_it_was(tmp_path: Path) -> None:
    catalog = Catalog(torch.tensor([[3, 0, 300], [0, 1, 2], [3, 0, 300]]), ["lamp", "väse", "7"])
    write_index(catalog, tmp_path / "shop.index.json")
    found = read_index(tmp_path / "shop.index.json")
    assert torch.equal(found.codes, catalog.codes)
    assert found.keys == catalog.keys


def test_an_index_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "shop.index.json").write_text("mine")
    with pytest.raises(InputError, match=r"shop.index.json: there already"):
        write_index(Catalog(torch.tensor([[0]]), ["x"]), tmp_path / "shop.index.json")
    assert (tmp_path / "shop.index.json").read_text() == "mine"


def test_more_slots_than_letters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"27 slots, expected at most 26, a letter for each$"):
        write_index(Catalog(torch.zeros(1, 27, dtype=torch.long), ["x"]), tmp_path / "shop.index.json")
