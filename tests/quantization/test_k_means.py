from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.vq import kmeans2
from torch import Tensor

from padrec.catalog import InputError
from padrec.quantization.k_means import KMeans, squared_distances


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def test_lloyds_iterations_equal_scipys() -> None:
    vectors = normal(200, 3)
    start = KMeans(5, iterations=0).fit(vectors, seeded())
    expected, codes = kmeans2(vectors.numpy(), start.numpy(), iter=7, minit="matrix")
    k_means = KMeans(5, iterations=7, batch_size=33)
    centroids = k_means.fit(vectors, seeded())
    torch.testing.assert_close(centroids, torch.from_numpy(expected))
    # scipy's codes are those before the last move of the centroids.
    before = k_means.assign(vectors, KMeans(5, iterations=6).fit(vectors, seeded()))
    assert before.tolist() == codes.tolist()


@given(data=st.data())
def test_distances_equal_their_definition(data: st.DataObject) -> None:
    m, k, d = (data.draw(st.integers(1, 6)) for _ in range(3))
    points, centroids = normal(m, d, seed=data.draw(st.integers(0, 99))), normal(k, d, seed=1)
    expected = [[float(((x - c) ** 2).sum()) for c in centroids] for x in points]
    torch.testing.assert_close(squared_distances(points, centroids), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_the_batch_size_does_not_matter(init: Literal["k-means++", "random"]) -> None:
    vectors = normal(100, 4)
    fits = [KMeans(7, 5, init, size).fit(vectors, seeded()) for size in (1, 13, 1000)]
    torch.testing.assert_close(fits[0], fits[1])
    torch.testing.assert_close(fits[0], fits[2])


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_the_same_seed_gives_the_same_centroids(init: Literal["k-means++", "random"]) -> None:
    vectors = normal(100, 4).float()
    once, again, other = (KMeans(7, 5, init).fit(vectors, seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_k_means_plus_plus_starts_in_every_far_cluster() -> None:
    centres = torch.eye(6) * 1e6
    vectors = (centres[:, None] + torch.randn(6, 20, 6, generator=seeded())).flatten(0, 1)
    start = KMeans(6, iterations=0, init="k-means++").fit(vectors, seeded())
    assert squared_distances(start, centres).argmin(1).sort().values.tolist() == list(range(6))


def test_an_empty_cluster_moves_to_the_farthest_point() -> None:
    vectors = torch.tensor([[0.0], [0.0], [0.0], [1.0], [9.0]])
    # All start on points; with equal points two centroids are equal, so that one of them stays empty.
    for seed in range(20):
        centroids = KMeans(3, iterations=10).fit(vectors, seeded(seed))
        assert centroids.flatten().sort().values.tolist() == [0.0, 1.0, 9.0]


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_fewer_different_points_than_clusters_are_all_centroids(init: Literal["k-means++", "random"]) -> None:
    vectors = torch.tensor([[0.0], [2.0], [2.0]])
    centroids = KMeans(5, init=init).fit(vectors, seeded())
    assert centroids.shape == (5, 1)
    assert set(centroids.flatten().tolist()) == {0.0, 2.0}


def test_clustering_leaves_the_global_determinism_as_it_was() -> None:
    KMeans(2, iterations=1).fit(normal(5, 2), seeded())
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("arguments", [{"n_clusters": 0}, {"iterations": -1}, {"batch_size": 0}, {"init": "best"}])
def test_arguments_out_of_range_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(InputError, match="expected"):
        KMeans(**{"n_clusters": 2, **arguments})  # type: ignore[arg-type]  # wrong on purpose
