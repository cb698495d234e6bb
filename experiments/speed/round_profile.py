"""Where a round's time goes.

From the repository's root: python -m experiments.speed.round_profile --output runs/speed/profile
"""

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule
from torch.utils.tensorboard import SummaryWriter

from experiments.speed.pass_costs import ROUNDS, recorded_start, round_tree
from experiments.speed.setting import Setting, backbone_of
from experiments.speed.timing import Timing, Work, interleaved_seconds
from experiments.study import check_positive, chosen_device, circumstances, report_markdown, run_command
from padrec import AutoregressiveDecoder, ListRequest, SpeculativeDecoder
from padrec.decoding import CapturedGraph, FreeDecoding, Phase, Rounds
from padrec.evaluation.report import check_writable, markdown_table, write_report

_OTHER = "other"
_DEVICE_WORK = ("kernel", "gpu_memcpy", "gpu_memset")
_LAUNCHES = ("cuda_runtime", "cuda_driver")


def measure(
    output: Path,
    shape: str = "28x1024",
    batches: Sequence[int] = (1, 8, 32),
    profiled_rounds: int = 4,
    repeats: int = 20,
    device: str | None = None,
    seed: int = 0,
) -> None:
    """Share a round's time out among its phases, on random weights; writes report.json, report.md and scalars.

    Args:
        output: folder of the report, new or without one.
        shape: of the target, LAYERSxWIDTH.
        batches: rows decoded together.
        profiled_rounds: rounds after the start of a list that are profiled.
        repeats: measurements of whole rounds.
        device: cpu or cuda; by default a GPU where there is one.
        seed: of the weights and the made-up data.

    Raises:
        InputError: a size below 1, a wrong shape or device, or a report that is already there.
    """
    check_positive(batches=batches, profiled_rounds=[profiled_rounds], repeats=[repeats])
    backbone_of(shape)
    check_writable(output)
    place, dtype = chosen_device(device)
    content = circumstances("experiments.speed.round_profile", place, dtype, seed) | {"shape": shape}
    with torch.inference_mode():
        setting = Setting.build(shape, place, dtype, seed)
        decoders: dict[str, AutoregressiveDecoder | SpeculativeDecoder] = {
            "autoregressive": AutoregressiveDecoder(),
            "forced": AutoregressiveDecoder(forced_tokens=True),
            "speculative": SpeculativeDecoder(setting.draft, round_tree()),
        }
        content["rounds"] = [
            {"decoder": name, "batch": batch} | _round(setting, decoder, batch, profiled_rounds, repeats)
            for batch in batches
            for name, decoder in decoders.items()
        ]
    write_report(output, content, _markdown(content))
    with SummaryWriter(str(output)) as writer:
        for row in content["rounds"]:
            for phase, found in row["phases"].items():
                writer.add_scalar(f"{row['decoder']}/{phase.replace(' ', '_')}_ms", found["milliseconds"], row["batch"])


class _FreeWithRuns(FreeDecoding):
    """Allows everything, in rounds of the shapes that another constraint gives them."""

    def __init__(self, request: ListRequest) -> None:
        super().__init__(request.vocabulary)
        self.longest_run = request.constraint.longest_run


def _round(setting: Setting, decoder: SpeculativeDecoder, batch: int, n_rounds: int, repeats: int) -> dict[str, Any]:
    """Phases of a round that is launched piece by piece, and the time of the round as it is decoded with.

    On a GPU a phase's time is that of its kernels, and what the recorded round takes longer is time between kernels. On
    the CPU a phase's time is the clock's.
    """
    device, request = setting.device, setting.request
    free = ListRequest(request.catalog, request.vocabulary, request.list_length, _FreeWithRuns(request))
    works, phases = {}, {}
    for name, kind in (("round", request), ("without constraint", free)):
        rounds, start = recorded_start(setting, setting.runner, decoder, kind, batch)
        works[name] = Work(CapturedGraph(rounds.round, device), ROUNDS, before=start)
        if name == "round":
            phases = _profiled(rounds, start, n_rounds, device)
    # One after the other: the draft's cache belongs to the start that came last.
    seconds = {name: interleaved_seconds({name: work}, device, repeats)[name] for name, work in works.items()}
    whole = Timing.of(1000 * seconds["round"])
    busy = sum(phase["milliseconds"] for phase in phases.values())
    constraint = whole.median - Timing.of(1000 * seconds["without constraint"]).median
    return {
        **whole.to_dict("round_ms"),
        "phases": phases,
        "idle_ms": whole.median - busy,
        "constraint_ms": constraint,
    }


def _profiled(rounds: Rounds, start: CapturedGraph, n_rounds: int, device: torch.device) -> dict[str, dict[str, float]]:
    start()
    rounds.round()  # compiles what a round needs that is not recorded
    start()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities, schedule=schedule(wait=0, warmup=1, active=n_rounds, repeat=1)) as profiler:
        for _ in range(1 + n_rounds):
            rounds.round()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            profiler.step()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    milliseconds, launches = phase_times(events)
    return {
        name: {"milliseconds": milliseconds[name] / n_rounds, "kernels": launches[name] / n_rounds}
        for name in [*(phase.value for phase in Phase), _OTHER]
        if name in milliseconds
    }


def phase_times(events: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float], Counter[str]]:
    """Milliseconds and kernels of every phase in a profiler's trace.

    A kernel belongs to the innermost phase in which it was launched. Where there are none, as on the CPU, a phase has
    the time between its ends, less that of the phases inside it.

    Args:
        events: `traceEvents` of a Chrome trace, times in microseconds.
    """
    prefix = Phase.TARGET_PASS.label.removesuffix(Phase.TARGET_PASS.value)
    spans = [event for event in events if event.get("cat") == "user_annotation" and event["name"].startswith(prefix)]
    phases = [(float(span["ts"]), float(span["ts"] + span["dur"]), span["name"].removeprefix(prefix)) for span in spans]
    work = [event for event in events if event.get("cat") in _DEVICE_WORK]
    milliseconds: dict[str, float] = {}
    launches: Counter[str] = Counter()
    if work:
        launched = {event["args"]["correlation"]: event["ts"] for event in events if event.get("cat") in _LAUNCHES}
        for event in work:
            name = _innermost(phases, launched.get(event["args"]["correlation"], float("-inf")))
            milliseconds[name] = milliseconds.get(name, 0.0) + event["dur"] / 1000
            launches[name] += 1
    for begin, end, name in [] if work else phases:
        milliseconds[name] = milliseconds.get(name, 0.0) + (end - begin) / 1000
        outer = [p for p in phases if p[0] <= begin and end <= p[1] and p != (begin, end, name)]
        if outer:
            around = max(outer)[2]
            milliseconds[around] = milliseconds.get(around, 0.0) - (end - begin) / 1000
    return milliseconds, launches


def _innermost(phases: Sequence[tuple[float, float, str]], time: float) -> str:
    return max((phase for phase in phases if phase[0] <= time <= phase[1]), default=(0.0, 0.0, _OTHER))[2]


def _markdown(content: Mapping[str, Any]) -> str:
    rows = content["rounds"]
    names = list(dict.fromkeys(name for row in rows for name in row["phases"]))
    table = markdown_table(
        ["decoder", "batch", "round (ms)", *names, "between them", "of it the constraint"],
        [
            [
                row["decoder"],
                str(row["batch"]),
                f"{row['round_ms']:.3g}",
                *(_phase_cell(row, name) for name in names),
                _share(row["idle_ms"], row["round_ms"]),
                _share(row["constraint_ms"], row["round_ms"]),
            ]
            for row in rows
        ],
    )
    about = (
        "Milliseconds, share of the round and kernels. Phases are profiled in rounds that are launched piece by piece; "
        "the round is timed as lists are decoded with it, from a recording on a GPU. There a phase is the time of its "
        "kernels, and between them is what the round takes longer. The constraint is part of several phases: it is "
        "what a round takes longer than one of the same shapes that allows everything."
    )
    return report_markdown(content, f"# Where a round's time goes, {content['shape']}", table, about)


def _phase_cell(row: Mapping[str, Any], name: str) -> str:
    if name not in row["phases"]:
        return "–"
    found = row["phases"][name]
    kernels = f", {found['kernels']:.0f} kernels" if found["kernels"] else ""
    return _share(found["milliseconds"], row["round_ms"]) + kernels


def _share(milliseconds: float, whole: float) -> str:
    return f"{milliseconds:.3g} ({milliseconds / whole:.0%})"


if __name__ == "__main__":
    run_command(measure)
