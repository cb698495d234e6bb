"""Time and memory of residual k-means on made-up embeddings.

From the repository's root: python -m experiments.quantizers.million_items --output runs/quantizers/million
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.speed.timing import timed
from experiments.study import check_positive, chosen_device, circumstances, peak_bytes, report_markdown, run_command
from padrec.evaluation.report import check_writable, markdown_table, write_report
from padrec.quantization import ResidualKMeans, count_collisions


def measure(
    output: Path,
    items: int = 1_000_000,
    dimension: int = 768,
    slots: int = 4,
    codes: int = 256,
    iterations: int = 20,
    fit_items: int | None = 262_144,
    device: str | None = None,
    seed: int = 0,
) -> None:
    """Cluster made-up embeddings and encode all of them; writes report.json and report.md.

    Args:
        output: folder of the report, new or without one.
        items: that have embeddings.
        dimension: of the embeddings.
        slots: of a semantic ID.
        codes: of a slot.
        iterations: Lloyd iterations of a slot, at most.
        fit_items: items to find the centroids from; null takes all.
        device: that computes, by default a GPU where there is one; the embeddings stay in the machine's memory.
        seed: of embeddings and centroids.

    Raises:
        InputError: a size below 1, a wrong device, or a report that is already there.
    """
    check_positive(items=[items], dimension=[dimension], slots=[slots], codes=[codes], iterations=[iterations])
    check_writable(output)
    place, _ = chosen_device(device)
    quantizer = ResidualKMeans((codes,) * slots, iterations=iterations, fit_items=fit_items, seed=seed, device=place)
    content = circumstances("experiments.quantizers.million_items", place, torch.float32, seed)
    vectors = made_up(items, dimension, seed)
    content |= {"items": items, "dimension": dimension, "codebook_sizes": [codes] * slots, "iterations": iterations}
    content |= {"fit_items": fit_items, "threads": torch.get_num_threads(), "gigabytes_before": peak_bytes() / 1e9}
    _, content["fit_seconds"] = timed(partial(quantizer.fit, vectors), place)
    found, content["encode_seconds"] = timed(partial(quantizer.encode, vectors), place)
    content |= {"gigabytes": peak_bytes() / 1e9, "collisions": count_collisions(found)}
    if place.type == "cuda":
        content["gpu_gigabytes"] = torch.cuda.max_memory_allocated(place) / 1e9
    write_report(output, content, _markdown(content))


def made_up(n_items: int, dimension: int, seed: int, chunk: int = 65_536) -> Tensor:
    """Gaussian with variances 1, 1/2, 1/3, …, as text embeddings have few strong directions; float32 `[n, d]`."""
    generator = torch.Generator().manual_seed(seed)
    deviations = torch.arange(1, dimension + 1).rsqrt()
    vectors = torch.empty(n_items, dimension)
    for part in vectors.split(chunk):
        part.normal_(generator=generator).mul_(deviations)
    return vectors


def _markdown(content: Mapping[str, Any]) -> str:
    rows = [
        ["find the centroids (s)", f"{content['fit_seconds']:.1f}"],
        ["encode all items (s)", f"{content['encode_seconds']:.1f}"],
        ["peak memory (GB)", f"{content['gigabytes']:.1f}"],
        ["of it before, with the embeddings (GB)", f"{content['gigabytes_before']:.1f}"],
        ["collisions", f"{content['collisions']:,}"],
    ]
    if "gpu_gigabytes" in content:
        rows.append(["peak memory of the GPU (GB)", f"{content['gpu_gigabytes']:.1f}"])
    sizes = " × ".join(map(str, content["codebook_sizes"]))
    sample = "all" if content["fit_items"] is None else f"{content['fit_items']:,}"
    title = f"# Residual k-means of {content['items']:,} items × {content['dimension']}"
    about = (
        f"Codes {sizes}, {content['iterations']} iterations, centroids from {sample} items; "
        f"{content['threads']} threads of the CPU."
    )
    return report_markdown(content, title, markdown_table(["measured", "value"], rows), about)


if __name__ == "__main__":
    run_command(measure)
