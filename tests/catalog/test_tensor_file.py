from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from padrec.catalog import InputError
from padrec.catalog.tensor_file import read_tensors, write_tensors
from tests.damage import with_a_flipped_bit

TENSORS = {
    "matrix": torch.arange(6.0).view(2, 3).T,
    "half": torch.ones(3, dtype=torch.bfloat16),
    "scalar": torch.tensor(7),
    "empty": torch.zeros(0, 2),
}


def test_what_is_written_is_read_here_and_elsewhere(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x.safetensors", TENSORS, {"made by": "a test"})
    tensors, metadata = read_tensors(tmp_path / "x.safetensors")
    assert metadata == {"made by": "a test"}
    for found in (tensors, load_file(tmp_path / "x.safetensors")):
        torch.testing.assert_close(found, TENSORS, rtol=0, atol=0)


def test_a_flipped_bit_anywhere_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, {"made by": "a test"})
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(with_a_flipped_bit(content, place / len(content)))
        try:
            found = read_tensors(path)
        except InputError:
            continue
        # A bit of the padding, or of the digest's own name: nothing else may be read as something else.
        torch.testing.assert_close(found.tensors, TENSORS, rtol=0, atol=0)
        assert found.metadata["made by"] == "a test"


def test_files_of_other_programs_need_no_digest(tmp_path: Path) -> None:
    save_file({"x": torch.ones(2), "y": torch.ones(3)}, tmp_path / "x.safetensors")
    assert set(read_tensors(tmp_path / "x.safetensors").tensors) == {"x", "y"}
    assert read_tensors(tmp_path / "x.safetensors", "x").tensors["x"].tolist() == [1, 1]
    with pytest.raises(InputError, match=r"x\.safetensors: no tensor 'z', found x, y"):
        read_tensors(tmp_path / "x.safetensors", "z")


@pytest.mark.parametrize("content", [b"", b"text", b"\xff" * 100])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.safetensors: cannot be read as safetensors"):
        read_tensors(tmp_path / "x.safetensors")
