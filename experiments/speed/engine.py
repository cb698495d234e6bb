"""What the parts of decoding cost by themselves, and whether a round costs more than its passes.

From the repository's root: python -m experiments.speed.engine --output runs/speed/engine
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from experiments.speed.constraint_cost import constraint_cost
from experiments.speed.engine_report import engine_markdown, log_engine
from experiments.speed.pass_costs import round_cost, target_passes
from experiments.speed.setting import Setting, backbone_of, past_bytes, read_bytes
from experiments.speed.timing import Work, interleaved_seconds
from experiments.study import check_positive, chosen_device, circumstances, run_command
from padrec.evaluation.report import check_writable, write_report

_MOVED_BYTES = {"cuda": 4 * 10**9, "cpu": 10**8}


def measure(
    output: Path,
    shapes: Sequence[str] = ("28x1024", "16x2048", "32x4096"),
    batches: Sequence[int] = (1, 8, 32),
    prefixes: Sequence[int] = (128, 512),
    nodes: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128),
    repeats: int = 20,
    catalog_items: int = 1_000_000,
    nominal_bandwidth: float = 4.3e12,
    device: str | None = None,
    seed: int = 0,
) -> None:
    """Measure passes, constraint and rounds on random weights; writes report.json, report.md and TensorBoard files.

    Args:
        output: folder of the report, new or without one.
        shapes: targets, LAYERSxWIDTH.
        batches: rows decoded together.
        prefixes: tokens that each row has read before a pass.
        nodes: tokens of each row that a target pass reads.
        repeats: measurements of everything.
        catalog_items: items of the catalog whose constraint is timed.
        nominal_bandwidth: bytes per second to state a second floor by; 0 leaves it out.
        device: cpu or cuda; by default a GPU where there is one.
        seed: of the weights and the made-up data.

    Raises:
        InputError: a size below 1, a wrong shape or device, or a report that is already there.
    """
    check_positive(batches=batches, prefixes=prefixes, nodes=nodes, repeats=[repeats], catalog_items=[catalog_items])
    for shape in shapes:
        backbone_of(shape)
    check_writable(output)
    place, dtype = chosen_device(device)
    content = circumstances("experiments.speed.engine", place, dtype, seed)
    with torch.inference_mode():
        content["bandwidth"] = _bandwidth(place, repeats) | {"nominal_bytes_per_second": nominal_bandwidth or None}
        content["constraint"] = constraint_cost(catalog_items, batches, nodes, repeats, place, seed)
        content["shapes"] = {}
        for shape in shapes:
            setting = Setting.build(shape, place, dtype, seed)
            content["shapes"][shape] = _costs(setting, batches, prefixes, nodes, repeats, content)
            del setting
            torch.cuda.empty_cache()
    write_report(output, content, engine_markdown(content))
    log_engine(output, content)


def _bandwidth(device: torch.device, repeats: int) -> dict[str, Any]:
    """Bytes per second of a copy, which reads and writes, and of a sum, which only reads, as passes mostly do."""
    source = torch.zeros(_MOVED_BYTES[device.type] // 4, device=device)
    target = torch.empty_like(source)
    size = source.numel() * source.element_size()
    works = {"copy": Work(lambda: target.copy_(source)), "read": Work(source.sum)}
    seconds = interleaved_seconds(works, device, repeats)
    copied, read = 2 * size / float(seconds["copy"].median()), size / float(seconds["read"].median())
    best = max(copied, read)
    return {"copy_bytes_per_second": copied, "read_bytes_per_second": read, "best_bytes_per_second": best}


def _costs(
    setting: Setting,
    batches: Sequence[int],
    prefixes: Sequence[int],
    nodes: Sequence[int],
    repeats: int,
    content: Mapping[str, Any],
) -> dict[str, Any]:
    model, bandwidth = setting.runner.model, content["bandwidth"]
    weights, per_second = read_bytes(model), bandwidth["best_bytes_per_second"]
    floor = {"floor_ms": 1000 * weights / per_second}
    if bandwidth["nominal_bytes_per_second"]:
        floor["nominal_floor_ms"] = 1000 * weights / bandwidth["nominal_bytes_per_second"]
    passes = []
    for batch in batches:
        for prefix in prefixes:
            with_past = 1000 * (weights + past_bytes(model, batch, prefix)) / per_second
            for row in target_passes(setting, batch, prefix, nodes, repeats):
                times = row["milliseconds"] / floor["floor_ms"], row["milliseconds"] / with_past
                passes.append(row | {"times_floor": times[0], "times_floor_with_past": times[1]})
    first_prefix = {(row["batch"], row["nodes"]): row for row in passes if row["prefix"] == prefixes[0]}
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "weight_bytes": weights,
        **floor,
        "target_pass": passes,
        "round": [round_cost(setting, batch, repeats) for batch in batches],
        "constraint_share": [
            {
                "batch": step["batch"],
                "nodes": step["nodes"],
                "of_target_pass": step["milliseconds"] / first_prefix[step["batch"], step["nodes"]]["milliseconds"],
            }
            for step in content["constraint"]["steps"]
        ],
    }


if __name__ == "__main__":
    run_command(measure)
