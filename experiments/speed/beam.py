"""What a beam search costs, by shape of the target, history, beam and batch, on random weights.

From the repository's root: python -m experiments.speed.beam --output runs/speed/beam
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from experiments.speed.setting import Setting, backbone_of, large_catalog
from experiments.speed.timing import Timing, Work, interleaved_seconds
from experiments.study import check_positive, chosen_device, circumstances, report_markdown, run_command, with_interval
from padrec import BeamDecoder
from padrec.catalog import InputError
from padrec.decoding import CapturedGraph, CatalogConstraint
from padrec.decoding.layers.prompt_shape import roomy
from padrec.evaluation.report import check_writable, markdown_table, write_report

# Shape of the target, history, beam and batch.
_BEAUTY = ("28x1024,128,10,1",)
_LARGE = tuple(f"28x2048,{row}" for row in ("1000,256,1", "1000,256,4", "5000,256,1", "160,20,32", "1000,10,1"))
_LARGE_CODEBOOKS = (1024, 1024, 1024)
PLANS = {"slot by slot": 0, "reading ahead": 512}


def measure(
    output: Path,
    rows: Sequence[str] = (*_BEAUTY, *_LARGE),
    large_items: int = 1_000_000,
    repeats: int = 15,
    device: str | None = None,
    seed: int = 0,
) -> None:
    """Time captured beam searches; writes report.json and report.md.

    Args:
        output: folder of the report, new or without one.
        rows: `SHAPE,HISTORY,BEAM,BATCH` each: LAYERSxWIDTH of the target, tokens of a prompt, beam width, rows.
        large_items: items of the catalog of targets 2,048 and more wide, of 3 x 1,024 codes; others have Beauty's size.
        repeats: measurements of each plan, in turn.
        device: cpu or cuda; by default a GPU where there is one.
        seed: of weights and data.

    Raises:
        InputError: a row or size that is none, or a report that is already there.
    """
    parsed = [_parsed(row) for row in rows]
    check_positive(large_items=[large_items], repeats=[repeats])
    check_writable(output)
    place, dtype = chosen_device(device)
    content = circumstances("experiments.speed.beam", place, dtype, seed) | {"rows": []}
    with torch.inference_mode():
        for shape in dict.fromkeys(row[0] for row in parsed):
            wide = int(shape.partition("x")[2]) >= 2048
            catalog = large_catalog(large_items, seed, _LARGE_CODEBOOKS)[0] if wide else None
            setting = Setting.build(shape, place, dtype, seed, catalog)
            for row in parsed:
                if row[0] == shape:
                    content["rows"] += _searches(setting, row, repeats)
            del setting
    write_report(output, content, _markdown(content))


def _parsed(row: str) -> tuple[str, int, int, int]:
    shape, *sizes = row.split(",")
    backbone_of(shape)
    if len(sizes) != 3 or not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise InputError(f"row {row!r}: expected SHAPE,HISTORY,BEAM,BATCH, such as 28x1024,128,10,1")
    history, beam, batch = map(int, sizes)
    return shape, history, beam, batch


def _searches(setting: Setting, row: tuple[str, int, int, int], repeats: int) -> list[dict[str, Any]]:
    (shape, history, beam, batch), device, runner = row, setting.device, setting.runner
    prompts = setting.prompts(batch, history)
    constraint = CatalogConstraint(cast(CatalogConstraint, setting.request.constraint).trie, setting.vocabulary, beam)
    request = replace(setting.request, list_length=beam, constraint=constraint)  # type: ignore[arg-type]
    found: dict[str, Work] = {}
    for plan, look_ahead in PLANS.items():
        session = BeamDecoder(look_ahead=look_ahead).bind(runner, request)
        found[plan] = Work(partial(session.decode, prompts, torch.Generator()))
    target = runner.open(batch, roomy(history + 1, device))

    def prefill() -> None:
        target.prefill(prompts)

    found["prefill"] = Work(CapturedGraph(prefill, device))
    milliseconds = {name: 1000 * times for name, times in interleaved_seconds(found, device, repeats).items()}
    prefill_time = Timing.of(milliseconds.pop("prefill"))
    return [
        {"shape": shape, "history": history, "beam": beam, "batch": batch}
        | {"plan": plan, "items": request.catalog.n_items}
        | Timing.of(times).to_dict("milliseconds")
        | prefill_time.to_dict("prefill_milliseconds")
        for plan, times in milliseconds.items()
    ]


def _markdown(content: Mapping[str, Any]) -> str:
    columns = ("shape", "history", "beam", "batch", "items", "plan")
    table = markdown_table(
        [*columns, "ms a batch (95 % interval)", "of it prefill"],
        [
            [
                *(str(row[column]) for column in columns),
                with_interval(row, "milliseconds", ".2f"),
                f"{row['prefill_milliseconds']:.2f}",
            ]
            for row in content["rows"]
        ],
    )
    about = "Whole calls of a captured search, from prompts on the device to ranked items."
    return report_markdown(content, "# What a beam search costs", table, about)


if __name__ == "__main__":
    run_command(measure)
