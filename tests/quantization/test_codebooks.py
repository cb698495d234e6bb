from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from padrec.catalog import InputError
from padrec.quantization import ResidualKMeans, read_codebooks, write_codebooks


def test_codebooks_come_back_and_give_the_same_codes(tmp_path: Path) -> None:
    vectors = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    fitted = ResidualKMeans((8, 5, 6)).fit(vectors)
    write_codebooks(tmp_path / "books.safetensors", fitted.codebooks)
    loaded = ResidualKMeans.of_codebooks(read_codebooks(tmp_path / "books.safetensors"))
    assert loaded.codebook_sizes == (8, 5, 6)
    assert torch.equal(loaded.encode(vectors), fitted.encode(vectors))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "books.safetensors"
    path.write_bytes(b"precious")
    with pytest.raises(InputError, match="there already"):
        write_codebooks(path, [torch.ones(2, 3)])
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "tensors none, expected slot_0"),
        ({"slot_1": torch.ones(2, 3)}, "tensors slot_1, expected slot_0"),
        ({"slot_0": torch.ones(2, 3), "slot_1": torch.ones(2, 4)}, r"slot_1 of shape \[2, 4\]"),
        ({"slot_0": torch.ones(3)}, r"slot_0 of shape \[3\]"),
        ({"slot_0": torch.ones(2, 3, dtype=torch.long)}, "slot_0 has values that are not finite floats"),
        ({"slot_0": torch.full((2, 3), torch.nan)}, "slot_0 has values that are not finite floats"),
    ],
)
def test_other_tensors_are_refused(tensors: dict[str, torch.Tensor], message: str, tmp_path: Path) -> None:
    save_file(tensors, tmp_path / "books.safetensors")
    with pytest.raises(InputError, match=message):
        read_codebooks(tmp_path / "books.safetensors")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_codebooks(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        read_codebooks(tmp_path / "text.safetensors")
