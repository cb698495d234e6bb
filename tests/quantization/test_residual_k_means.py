import pytest
import torch
from torch import Tensor

from padrec.catalog import InputError
from padrec.quantization import ResidualKMeans


def normal(n: int, d: int = 3) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def reference_codes(vectors: Tensor, codebooks: list[Tensor]) -> list[list[int]]:
    """Slot after slot, item by item."""
    rows = []
    for vector in vectors:
        residual, row = vector.clone(), []
        for codebook in codebooks:
            row.append(int(((codebook - residual) ** 2).sum(1).argmin()))
            residual = residual - codebook[row[-1]]
        rows.append(row)
    return rows


def test_codes_are_nearest_to_what_the_slots_before_left_over() -> None:
    vectors = normal(60)
    quantizer = ResidualKMeans((4, 5, 3), batch_size=7).fit(vectors)
    codes = quantizer.encode(vectors)
    assert codes.dtype == torch.int64
    assert codes.tolist() == reference_codes(vectors, quantizer.codebooks)


def test_distances_after_a_prefix_lead_to_the_codes() -> None:
    vectors = normal(60)
    quantizer = ResidualKMeans((4, 5, 3)).fit(vectors)
    codes = quantizer.encode(vectors)
    for slot in range(3):
        distances = quantizer.distances(vectors, codes[:, :slot])
        assert distances.shape == (60, (4, 5, 3)[slot])
        assert torch.equal(distances.argmin(1), codes[:, slot])
        left = vectors - (quantizer.decode(codes[:, :slot]) if slot else 0)
        expected = (left[:, None] - quantizer.codebooks[slot]).square().sum(2)
        torch.testing.assert_close(distances, expected)


def test_every_slot_lowers_the_error() -> None:
    vectors = normal(200)
    quantizer = ResidualKMeans((8, 8, 8)).fit(vectors)
    codes = quantizer.encode(vectors)
    errors = [float((quantizer.decode(codes[:, :slots]) - vectors).square().mean()) for slots in (1, 2, 3)]
    assert errors[0] > errors[1] > errors[2]


def test_as_many_codes_as_items_reconstruct_exactly() -> None:
    vectors = normal(9)
    quantizer = ResidualKMeans((9,)).fit(vectors)
    torch.testing.assert_close(quantizer.decode(quantizer.encode(vectors)), vectors)


def test_a_sample_fits_and_all_items_are_encoded() -> None:
    vectors = normal(100)
    quantizer = ResidualKMeans((4, 4), fit_items=30).fit(vectors)
    again = ResidualKMeans((4, 4), fit_items=30).fit(vectors)
    everything = ResidualKMeans((4, 4), fit_items=None).fit(vectors)
    assert len(quantizer.encode(vectors)) == 100
    assert all(torch.equal(one, other) for one, other in zip(quantizer.codebooks, again.codebooks, strict=True))
    assert not torch.equal(quantizer.codebooks[0], everything.codebooks[0])


def test_fitting_leaves_the_vectors_alone() -> None:
    vectors = normal(40)
    for fit_items in (None, 30, 1000):
        ResidualKMeans((3, 3), fit_items=fit_items).fit(vectors)
        assert torch.equal(vectors, normal(40))


def test_distances_to_all_codes_are_never_in_memory_for_all_items(monkeypatch: pytest.MonkeyPatch) -> None:
    widest: list[int] = []
    product = torch.addmm

    def recorded(bias: Tensor, left: Tensor, right: Tensor, alpha: float) -> Tensor:
        widest.append(len(left))
        return product(bias, left, right, alpha=alpha)

    monkeypatch.setattr(torch, "addmm", recorded)
    vectors = normal(1000)
    ResidualKMeans((3, 3), batch_size=10).fit(vectors).encode(vectors)
    assert max(widest) == 10


def test_an_unfitted_quantizer_says_so() -> None:
    with pytest.raises(InputError, match=r"no codebooks: call `fit` first$"):
        ResidualKMeans((2,)).encode(normal(3))


def test_vectors_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match=r"^vectors of shape \[3, 2\], expected \[items, 3\] as in the fit$"):
        ResidualKMeans((2,)).fit(normal(5)).encode(normal(3, d=2))
    with pytest.raises(InputError, match=r"expected \[items, dimensions\], neither 0$"):
        ResidualKMeans((2,)).fit(normal(0))


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match=r"^no codebook sizes, expected one for each slot$"):
        ResidualKMeans(())
    with pytest.raises(InputError, match="fit_items is 0, expected at least 1 or null"):
        ResidualKMeans((2,), fit_items=0)
