"""What a draft gains on targets of other shapes, by the acceptance that was measured on one of them.

From the repository's root: python -m experiments.atspeed.shapes --output runs/atspeed/shapes
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from experiments.speed.beam import PLANS
from experiments.speed.setting import Setting, backbone_of, drawn_on
from experiments.speed.timing import Timing, Work, interleaved_seconds
from experiments.study import check_positive, chosen_device, circumstances, report_markdown, run_command
from padrec import Prompts, TransformersRunner
from padrec.catalog import InputError
from padrec.data.json_file import read_json_object
from padrec.decoding import CapturedGraph, LanguageModelBeamDraft
from padrec.decoding.beam.beam_decoder import searched_constraint
from padrec.decoding.beam.beam_plan import SpeculativeBeamPlan, plan_passes, tokens_after_prompt
from padrec.decoding.beam.beam_rule import StrictBeamRule
from padrec.decoding.beam.beam_search import BeamSearch
from padrec.decoding.beam.children import Draw
from padrec.decoding.beam.speculative_beam_search import SpeculativeBeamSearch
from padrec.decoding.layers.prompt_shape import cache_capacity
from padrec.evaluation.report import check_writable, markdown_table, write_report
from padrec.targets import build_backbone


def measure(
    output: Path,
    report: Path = Path("runs/atspeed/beauty/compare/k10-batch1-t0/report.json"),
    arm: str = "draft-strict",
    draft_width: int | list[int] = 40,
    shapes: Sequence[str] = ("28x1024", "32x4096"),
    draft_shape: str = "2x512",
    history: int = 64,
    repeats: int = 30,
    device: str | None = None,
    seed: int = 0,
) -> None:
    """Time the rounds of a speculative search with random weights, each captured; writes report.json and report.md.

    A user takes the first round, and later ones as often as the report's acceptance of each length makes them, which
    go on from the first length that was missed. Beside that stand the searches without a draft, captured too. All of it
    is without the host's work before and after a search.

    Args:
        output: folder of the report, new or without one.
        report: of an evaluation with one user at a time.
        arm: of that report, whose acceptance of each length counts.
        draft_width: of this arm.
        shapes: LAYERSxWIDTH of targets.
        draft_shape: that of the draft.
        history: tokens of a prompt.
        repeats: measurements of each, in turn.
        device: cpu or cuda; by default a GPU where there is one.
        seed: of weights and data.

    Raises:
        InputError: a shape or size that is none, a report without the arm, or one that is already there.
    """
    check_positive(
        draft_width=[draft_width] if isinstance(draft_width, int) else draft_width, history=[history], repeats=[repeats]
    )
    check_writable(output)
    arms: Any = read_json_object(report, "name -> part of a report").get("arms", {})
    accepted = [share for share in arms.get(arm, {}).get("acceptance_by_slot", []) if share is not None]
    if not accepted:
        raise InputError(f"{report}: no acceptance_by_slot of an arm {arm!r}, expected the report of a comparison")
    shares = rounds_taken(accepted)
    place, dtype = chosen_device(device)
    content = circumstances("experiments.atspeed.shapes", place, dtype, seed)
    content |= {"arm": arm, "draft_width": draft_width, "history": history, "rounds_taken": shares, "rows": []}
    for shape in shapes:
        backbone_of(shape)
        with torch.inference_mode():
            setting = Setting.build(shape, place, dtype, seed)
            works = _searches(setting, history) | _rounds(setting, history, draft_width, draft_shape, dtype)
            seconds = interleaved_seconds(works, place, repeats)
        content["rows"].append({"shape": shape} | _row(seconds, shares))
        del setting, works
    write_report(output, content, _markdown(content))


def rounds_taken(accepted: Sequence[float]) -> list[float]:
    """How often a user takes each round, by the share of each length's proposals that is accepted.

    A round continues from a length and ends at the first length that is not accepted, whose prefixes the target finds.
    """
    taken = [1.0] + [0.0] * len(accepted)
    for begin in range(len(taken)):
        reached = taken[begin]
        for length in range(begin, len(accepted)):
            taken[length + 1] += reached * (1 - accepted[length])
            reached *= accepted[length]
    return taken


def _searches(setting: Setting, history: int) -> dict[str, Work]:
    """Whole searches without a draft."""
    prompts, runner, device = setting.prompts(1, history), setting.runner, setting.device
    constraint, width = searched_constraint(setting.request, None)
    works = {}
    for name, look_ahead in PLANS.items():
        plan = plan_passes(constraint.trie, width, look_ahead)
        target = runner.open(1, cache_capacity(prompts, tokens_after_prompt(plan), device))
        draw = Draw.of(setting.request, 1, device)
        search = BeamSearch(runner, target, constraint, width, plan, False, draw, fixed_shapes=True)
        works[name] = Work(CapturedGraph(partial(_search, search, prompts), device))
    return works


def _search(search: BeamSearch, prompts: Prompts) -> None:
    search.start(prompts, torch.zeros_like(prompts.lengths))
    search.finish()


def _rounds(
    setting: Setting, history: int, draft_width: int | Sequence[int], draft_shape: str, dtype: torch.dtype
) -> dict[str, Work]:
    """The rounds of a search with a draft: what they cost does not depend on what they find."""
    prompts, runner, device = setting.prompts(1, history), setting.runner, setting.device
    with drawn_on(device, dtype):
        network = build_backbone(backbone_of(draft_shape), setting.vocabulary)
    draft = LanguageModelBeamDraft(TransformersRunner(network.eval().requires_grad_(False)))
    constraint, width = searched_constraint(setting.request, None)
    plan = SpeculativeBeamPlan.of(constraint.trie, width, draft_width)
    capacity = cache_capacity(prompts, plan.first(plan.n_slots), device)
    opened = runner.open(1, capacity), draft.bind(runner, setting.request)(1, capacity, constraint)
    search = SpeculativeBeamSearch(
        runner, *opened, constraint, plan, StrictBeamRule(), Draw.of(setting.request, 1, device)
    )
    start = partial(search.start, prompts, torch.zeros_like(prompts.lengths))
    works = {"round 0": Work(CapturedGraph(start, device))}
    for number in range(1, plan.n_slots):
        works[f"round {number}"] = Work(CapturedGraph(partial(search.round, number), device))
    return works


def _row(seconds: Mapping[str, torch.Tensor], shares: Sequence[float]) -> dict[str, Any]:
    found = {name: 1000 * times for name, times in seconds.items()}
    rounds = [times for name, times in found.items() if name.startswith("round")]
    drafted = torch.stack([share * times for share, times in zip(shares, rounds, strict=True)]).sum(0)
    row: dict[str, Any] = {"rounds_milliseconds": [float(times.median()) for times in rounds]}
    row |= Timing.of(drafted).to_dict("drafted_milliseconds")
    for plan in PLANS:
        name = plan.replace(" ", "_")
        row |= Timing.of(found[plan]).to_dict(f"{name}_milliseconds")
        row |= Timing.of(found[plan], drafted).to_dict(f"speedup_over_{name}")
    return row


def _markdown(content: Mapping[str, Any]) -> str:
    header = ["target", *PLANS, "rounds with a draft", "a user with a draft", *(f"over {plan}" for plan in PLANS)]
    rows = []
    for row in content["rows"]:
        names = [plan.replace(" ", "_") for plan in PLANS]
        times = [f"{row[f'{name}_milliseconds']:.2f}" for name in names]
        rounds = ", ".join(f"{time:.2f}" for time in row["rounds_milliseconds"])
        gains = [f"{row[f'speedup_over_{name}']:.2f}" for name in names]
        rows.append([row["shape"], *times, rounds, f"{row['drafted_milliseconds']:.2f}", *gains])
    shares = ", ".join(f"{share:.3f}" for share in content["rounds_taken"])
    about = f"Milliseconds. Rounds 0, 1 … that a user takes with the acceptance of `{content['arm']}`: {shares}."
    title = "# What a draft gains by the target's shape"
    return report_markdown(content, title, about, markdown_table(header, rows))


if __name__ == "__main__":
    run_command(measure)
