"""k-means in batches: Lloyd's iterations that keep the distances of one batch in memory at a time."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from padrec.catalog import NonNegativeInt, PositiveInt, check_arguments

# Points per cluster that k-means++ samples: each of its draws is a pass over the whole sample.
_SEEDING_POINTS = 64


@dataclass(frozen=True)
class KMeans:
    """k-means clustering, reproducible for a given seed.

    Lloyd's iterations (Lloyd 1982): assign every point to its nearest centroid, move every centroid to the mean of its
    points. An empty cluster restarts from one of the points farthest from their centroids.

    Args:
        n_clusters: K.
        iterations: most iterations; fitting ends earlier when no assignment changes.
        init: first centroids: `k-means++` (Arthur and Vassilvitskii 2007) on a random sample of 64 points per cluster,
            or a `random` subset of the points.
        batch_size: points whose distances to all centroids are in memory at a time.
    """

    n_clusters: PositiveInt
    iterations: NonNegativeInt = 20
    init: Literal["k-means++", "random"] = "random"
    batch_size: PositiveInt = 16384

    def __post_init__(self) -> None:
        check_arguments(KMeans, vars(self))

    def fit(self, points: Tensor, generator: torch.Generator) -> Tensor:
        """Find the centroids `[K, d]`; some are equal if there are fewer distinct points than clusters.

        Points are float32 or float64 `[n, d]`, on the device that computes; the generator is on the CPU.
        """
        centroids = self._start(points, generator)
        # Computed once: in every iteration it would take a third of the time.
        norms = torch.cat([batch.square().sum(1) for batch in points.split(self.batch_size)])  # [n]
        codes = torch.full((len(points),), -1, device=points.device)
        for _ in range(self.iterations):
            previous = codes
            codes, distances, sums = self._assign(points, norms, centroids)
            if bool((codes == previous).all()):
                break
            centroids = self._means(points, codes, distances, sums, centroids)
        return centroids

    def assign(self, points: Tensor, centroids: Tensor) -> Tensor:
        """Return the first nearest centroid `[K, d]` of every point `[n, d]`, int64 `[n]`."""
        return torch.cat([squared_distances(batch, centroids).argmin(1) for batch in points.split(self.batch_size)])

    def _start(self, points: Tensor, generator: torch.Generator) -> Tensor:
        wanted = self.n_clusters if self.init == "random" else self.n_clusters * _SEEDING_POINTS
        chosen = torch.randperm(len(points), generator=generator)[:wanted]
        sample = points[chosen.to(points.device)]  # [at most wanted, d]
        if self.init == "k-means++":
            return _spread(sample, self.n_clusters, generator)
        # Repeat the points if there are fewer than clusters.
        return sample[torch.arange(self.n_clusters, device=sample.device) % len(sample)]

    def _assign(self, points: Tensor, norms: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes and squared distances of the points, `[n]`, and the sum of each cluster, `[K, d]`, in one pass."""
        codes, nearest = [], []
        # Sums over a million points in float32 would lose digits.
        sums = centroids.new_zeros(centroids.shape, dtype=torch.float64)
        centroid_norms = centroids.square().sum(1)
        for batch in points.split(self.batch_size):
            found = torch.addmm(centroid_norms, batch, centroids.T, alpha=-2).min(1)
            codes.append(found.indices)
            nearest.append(found.values)
            sums += _sums_by_code(batch, found.indices, self.n_clusters)
        return torch.cat(codes), (torch.cat(nearest) + norms).clamp_(min=0), sums

    def _means(self, points: Tensor, codes: Tensor, distances: Tensor, sums: Tensor, centroids: Tensor) -> Tensor:
        counts = torch.bincount(codes, minlength=self.n_clusters)  # [K]
        means = (sums / counts.clamp(min=1)[:, None]).to(centroids.dtype)
        empty = (counts == 0).nonzero().flatten()
        far = distances.topk(min(len(empty), len(distances))).indices
        far = far[distances[far] > 0]  # points that coincide with a centroid need no second one
        means[empty] = centroids[empty]
        means[empty[: len(far)]] = points[far]
        return means


def squared_distances(points: Tensor, centroids: Tensor) -> Tensor:
    """Return ‖x − c‖², never negative, of points `[m, d]` and centroids `[K, d]`, `[m, K]`."""
    norms = points.square().sum(1, keepdim=True) + centroids.square().sum(1)  # [m, K]
    return torch.addmm(norms, points, centroids.T, alpha=-2).clamp_(min=0)


def _spread(points: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++: draw each next centroid in proportion to its squared distance to the nearest one so far."""
    chosen = [int(torch.randint(len(points), (1,), generator=generator))]
    nearest = (points - points[chosen[0]]).square().sum(1)  # [n]
    for _ in range(n_clusters - 1):
        # On the CPU, so that every device draws the same numbers.
        cumulative = nearest.double().cpu().cumsum(0)
        drawn = torch.rand(1, generator=generator, dtype=torch.float64) * cumulative[-1]
        place = min(int(torch.searchsorted(cumulative, drawn, right=True)), len(points) - 1)
        chosen.append(place)
        nearest = torch.minimum(nearest, (points - points[place]).square().sum(1))
    return points[torch.tensor(chosen, device=points.device)]


def _sums_by_code(points: Tensor, codes: Tensor, n_clusters: int) -> Tensor:
    """Sum of the points of each cluster, `[K, d]`, added in the same order in every run."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    # GPUs add in random order otherwise. Only here, since deterministic matrix products need an environment variable.
    torch.use_deterministic_algorithms(True)
    try:
        return points.new_zeros(n_clusters, points.shape[1]).index_add_(0, codes, points)
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
