from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from padrec.catalog import InputError
from padrec.quantization import (
    ConcatenatedEmbeddings,
    EmbeddingFile,
    EmbeddingSource,
    ItemEmbeddings,
    PrincipalComponents,
)


class Given(EmbeddingSource):
    def __init__(self, vectors: torch.Tensor) -> None:
        self._vectors = vectors

    def embed(self) -> ItemEmbeddings:
        return ItemEmbeddings([str(row) for row in range(len(self._vectors))], self._vectors, source="given")


def vectors() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(50, 5, generator=generator) * torch.tensor([1.0, 5.0, 2.0, 0.5, 3.0]) + 7


def test_components_equal_those_of_a_singular_value_decomposition() -> None:
    found = PrincipalComponents(Given(vectors()), 3).embed().vectors
    centred = (vectors() - vectors().mean(0)).double()
    left, singular, _ = torch.linalg.svd(centred, full_matrices=False)
    expected = left[:, :3] * singular[:3]
    torch.testing.assert_close(found.abs(), expected.abs().float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found @ found.T, (expected @ expected.T).float(), rtol=1e-4, atol=1e-3)


def test_all_components_keep_all_distances() -> None:
    found = PrincipalComponents(Given(vectors()), 5).embed()
    torch.testing.assert_close(torch.pdist(found.vectors), torch.pdist(vectors()), rtol=1e-4, atol=0)
    assert found.source == "given"


def test_a_number_of_components_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match=r"^given: 5 dimensions, expected at least 6$"):
        PrincipalComponents(Given(vectors()), 6).embed()


def test_later_items_are_projected_as_the_first_ones(tmp_path: Path) -> None:
    file = tmp_path / "kept" / "components.safetensors"
    first = PrincipalComponents(Given(vectors()), 3, str(file)).embed().vectors
    assert torch.equal(first, PrincipalComponents(Given(vectors()), 3).embed().vectors)
    later = PrincipalComponents(Given(vectors()[:4]), 3, str(file)).embed().vectors
    torch.testing.assert_close(later, first[:4])


def test_components_of_other_embeddings_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "components.safetensors"
    PrincipalComponents(Given(vectors()), 3, str(file)).embed()
    with pytest.raises(InputError, match="3 components of 5 dimensions, expected 2 of the 5 dimensions of given"):
        PrincipalComponents(Given(vectors()), 2, str(file)).embed()
    save_file({"mean": torch.ones(2)}, tmp_path / "mean.safetensors")
    with pytest.raises(InputError, match="expected safetensors with the tensors mean and axes"):
        PrincipalComponents(Given(vectors()), 2, str(tmp_path / "mean.safetensors")).embed()


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


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected parts, one weight each$"):
        ConcatenatedEmbeddings([EmbeddingFile("a.npy")], [1.0, 1.0])
