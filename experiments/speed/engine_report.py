"""The report of `engine.py`: Markdown and TensorBoard."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from experiments.speed.cost_figure import cost_by_nodes
from experiments.study import report_markdown, with_interval
from padrec.evaluation.report import markdown_table

_ROUND_COLUMNS = (
    ("round (ms)", "round_ms"),
    ("its passes alone (ms)", "passes_ms"),
    ("round ÷ passes", "round_over_passes"),
    ("target pass (ms)", "target_pass_ms"),
    ("draft passes (ms)", "draft_passes_ms"),
    ("one draft pass (ms)", "one_draft_pass_ms"),
    ("start (ms)", "start_ms"),
)
_cell = partial(with_interval, form=".3g")


def engine_markdown(content: Mapping[str, Any]) -> str:
    """The tables of a report."""
    bandwidth = content["bandwidth"]
    lines = [
        f"- {kind}: {bandwidth[f'{kind}_bytes_per_second'] / 1e12:.3g} TB/s"
        for kind in ("copy", "read", "nominal")
        if bandwidth[f"{kind}_bytes_per_second"]
    ]
    parts = ["# Cost of passes, rounds and the constraint", "## Bandwidth", "\n".join(lines)]
    for shape, found in content["shapes"].items():
        parts += _shape_markdown(shape, found)
    return report_markdown(content, *parts, _constraint_markdown(content))


def _shape_markdown(shape: str, found: Mapping[str, Any]) -> list[str]:
    passes = found["target_pass"]
    columns = list(dict.fromkeys((row["batch"], row["prefix"]) for row in passes))
    cells = {
        (row["nodes"], row["batch"], row["prefix"]): f"{_cell(row, 'milliseconds')}, {row['times_floor']:.1f} ×"
        for row in passes
    }
    counts = list(dict.fromkeys(row["nodes"] for row in passes))
    target = markdown_table(
        ["nodes", *(f"batch {batch}, prefix {prefix}" for batch, prefix in columns)],
        [[str(count), *(cells[count, *column] for column in columns)] for count in counts],
    )
    rounds = markdown_table(
        ["batch", "nodes", *(name for name, _ in _ROUND_COLUMNS), "recording start / round (s)"],
        [
            [
                str(row["batch"]),
                str(row["nodes"]),
                *(_cell(row, key) for _, key in _ROUND_COLUMNS),
                f"{row['start_recording_seconds']:.1f} / {row['round_recording_seconds']:.1f}",
            ]
            for row in found["round"]
        ],
    )
    floors = f"floor (weights ÷ best measured bandwidth) {found['floor_ms']:.3f} ms"
    if "nominal_floor_ms" in found:
        floors += f", by the nominal bandwidth {found['nominal_floor_ms']:.3f} ms"
    recording = sum(row["recording_seconds"] for row in passes)
    return [
        f"## {shape}",
        f"{found['parameters'] / 1e6:,.0f} million parameters, {found['weight_bytes'] / 1e9:.3g} GB read by a pass; "
        f"{floors}. Recording all {len(passes)} target passes took {recording:.1f} s.",
        "Target pass: milliseconds (95 % interval) and multiples of the floor.",
        target,
        "A round of speculation and its passes timed alone, behind a prefix of "
        f"{found['round'][0]['prefix']} tokens; the draft passes hold its reading of what was kept.",
        rounds,
    ]


def _constraint_markdown(content: Mapping[str, Any]) -> str:
    constraint = content["constraint"]
    shares = {
        shape: [f"{row['of_target_pass']:.1%}" for row in found["constraint_share"]]
        for shape, found in content["shapes"].items()
    }
    header = ["batch", "nodes", "constrained (ms)", "half excluded (ms)", "begin excluding (ms)", "unconstrained (ms)"]
    table = markdown_table(
        [*header, *(f"share of a target pass, {shape}" for shape in shares)],
        [
            [
                str(row["batch"]),
                str(row["nodes"]),
                _cell(row, "milliseconds"),
                _cell(row, "excluding_milliseconds"),
                _cell(row, "begin_excluding_milliseconds"),
                _cell(row, "free_milliseconds"),
                *(column[number] for column in shares.values()),
            ]
            for number, row in enumerate(constraint["steps"])
        ],
    )
    about = (
        f"{constraint['items']:,} items, whose trie took {constraint['trie_seconds']:.1f} s to build. "
        "One token: what is allowed, the choice among it, the states behind it."
    )
    return "\n\n".join(["## Catalog constraint", about, table])


def log_engine(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the costs as scalars, by nodes or by batch size, and a figure for each shape."""
    with SummaryWriter(str(folder)) as writer:
        for shape, found in content["shapes"].items():
            for row in found["target_pass"]:
                tag = f"{shape}/target_pass_ms/batch_{row['batch']}_prefix_{row['prefix']}"
                writer.add_scalar(tag, row["milliseconds"], row["nodes"])
            for row in found["round"]:
                for key in ("round_ms", "passes_ms", "round_over_passes", "one_draft_pass_ms"):
                    writer.add_scalar(f"{shape}/{key}", row[key], row["batch"])
            writer.add_figure(f"{shape}/cost_by_nodes", cost_by_nodes(shape, found), close=False)
        writer.add_text("report", engine_markdown(content))
