"""Time and peak memory of residual k-means on made-up embeddings: `python measure_residual_k_means.py --help`."""

import argparse
import json
import resource
import time

import torch

from padrec.catalog.quantizers import ResidualKMeans, count_collisions


def made_up(n_items: int, dimension: int, chunk: int = 65536) -> torch.Tensor:
    """Gaussian with variances 1, 1/2, 1/3, …, as text embeddings have few strong directions; generated in chunks."""
    generator = torch.Generator().manual_seed(0)
    deviations = torch.arange(1, dimension + 1).rsqrt()
    vectors = torch.empty(n_items, dimension)
    for part in vectors.split(chunk):
        part.normal_(generator=generator).mul_(deviations)
    return vectors


def peak_gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=768)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--codes", type=int, default=256)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--fit-items", type=int, default=262144, help="0 takes all")
    parser.add_argument("--init", choices=["random", "k-means++"], default="random")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    vectors = made_up(options.items, options.dimension)
    report: dict[str, object] = {
        **vars(options),
        "threads": torch.get_num_threads(),
        "peak_gb_before": peak_gigabytes(),
    }
    quantizer = ResidualKMeans(
        (options.codes,) * options.slots,
        iterations=options.iterations,
        init=options.init,
        fit_items=options.fit_items or None,
        device=options.device,
    )
    start = time.perf_counter()
    quantizer.fit(vectors)
    fitted = time.perf_counter()
    codes = quantizer.encode(vectors)
    report |= {"fit_seconds": fitted - start, "encode_seconds": time.perf_counter() - fitted}
    report |= {"peak_gb": peak_gigabytes(), "collisions": count_collisions(codes)}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
