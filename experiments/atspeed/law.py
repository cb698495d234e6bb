"""Which law the rules of speculative beam search draw from, against exact enumeration on small cases.

From the repository's root: python -m experiments.atspeed.law --output runs/atspeed/law
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.study import check_positive, circumstances, report_markdown, run_command
from padrec.catalog import InputError
from padrec.decoding import BeamRule, RelaxedBeamRule, StrictBeamRule
from padrec.decoding.beam.beam_rule import DraftView
from padrec.decoding.beam.children import Children, Draw
from padrec.decoding.beam.selection import best_in_order
from padrec.decoding.lists.sampling import token_steps
from padrec.evaluation.report import check_writable, markdown_table, write_report

_RULES: dict[str, BeamRule] = {"sound": StrictBeamRule(), "relaxed": RelaxedBeamRule()}


def measure(
    output: Path,
    outcomes: int = 4,
    widths: Sequence[tuple[int, int]] = ((1, 1), (3, 1), (3, 2)),
    distances: Sequence[float] = (0.0, 0.5, 1.0),
    cases: int = 20,
    draws: int = 100_000,
    seed: int = 0,
) -> None:
    """Draw one step of a beam by each rule many times; writes report.json and report.md.

    Args:
        output: folder of the report, new or without one.
        outcomes: children of the beam.
        widths: pairs of prefixes that the draft proposes and that the target keeps.
        distances: standard deviations of the noise that turns the target's logits into the draft's.
        cases: targets, with standard normal logits, for each pair and distance.
        draws: of each case.
        seed: of logits and draws.

    Raises:
        InputError: a size below 1, more kept or proposed than there are, or a report that is already there.
    """
    check_positive(outcomes=[outcomes], cases=[cases], draws=[draws])
    if any(not 1 <= kept <= proposed <= outcomes for proposed, kept in widths):
        raise InputError(f"widths {list(widths)}: expected 1 ≤ kept ≤ proposed ≤ {outcomes} in each pair")
    check_writable(output)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for proposed, kept in widths:
        for distance in distances:
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in _RULES}
            for _ in range(cases):
                target = torch.randn(outcomes, generator=generator)
                draft = target + distance * torch.randn(outcomes, generator=generator)
                keys = torch.randint(-(2**62), 2**62, (draws,), generator=generator)
                for name, rule in _RULES.items():
                    found[name].append(_one(rule, target, draft, keys, proposed, kept))
            for name, values in found.items():
                variation, accepted = torch.tensor(values).mean(0).tolist()
                row = {"proposed": proposed, "kept": kept, "distance": distance, "rule": name}
                rows.append(row | {"total_variation": variation, "accepted": accepted})
    place = torch.device("cpu")
    content = circumstances("experiments.atspeed.law", place, torch.float32, seed) | {"outcomes": outcomes}
    write_report(output, content | {"cases": cases, "draws": draws, "rows": rows}, _markdown(content, rows))


def _one(rule: BeamRule, target: Tensor, draft: Tensor, keys: Tensor, proposed: int, kept: int) -> tuple[float, float]:
    """Total variation of the drawn sets from drawing without replacement, and the share of accepted steps."""
    draw = Draw(keys, 1.0, token_steps(len(target), keys.device))
    own = _children(draft, keys)
    index = best_in_order(rule.draft_ranks(own, draw), proposed)
    mask = torch.zeros(own.scores.shape, dtype=torch.bool).scatter(1, index, value=True)
    found = rule.keep(_children(target, keys), DraftView(mask, own.scores), draw, kept)
    accepted = (found.accepted & mask.gather(1, found.index).all(1)).float().mean()
    sets, counts = found.index.unique(dim=0, return_counts=True)
    share = {tuple(chosen): count / len(keys) for chosen, count in zip(sets.tolist(), counts.tolist(), strict=True)}
    law = without_replacement(target.softmax(0).tolist(), kept)
    return sum(abs(share.get(chosen, 0.0) - chance) for chosen, chance in law.items()) / 2, float(accepted)


def _children(logits: Tensor, keys: Tensor) -> Children:
    """The only prefix's children in every row."""
    code = torch.arange(len(logits)).expand(len(keys), -1)
    scores = logits.log_softmax(0).expand(len(keys), -1)
    return Children(torch.zeros_like(keys)[:, None], code + 1, code, scores, scores)


def without_replacement(chances: Sequence[float], count: int) -> dict[tuple[int, ...], float]:
    """Probability of each set of `count` outcomes that are drawn one after another without replacement."""
    law: dict[tuple[int, ...], float] = {}
    for order in itertools.permutations(range(len(chances)), count):
        probability, left = 1.0, 1.0
        for outcome in order:
            probability *= chances[outcome] / left
            left -= chances[outcome]
        chosen = tuple(sorted(order))
        law[chosen] = law.get(chosen, 0.0) + probability
    return law


def _markdown(content: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    table = markdown_table(
        ["proposed", "kept", "draft's distance", "rule", "total variation", "steps accepted"],
        [
            [
                str(row["proposed"]),
                str(row["kept"]),
                f"{row['distance']:g}",
                row["rule"],
                f"{row['total_variation']:.3f}",
                f"{row['accepted']:.0%}",
            ]
            for row in rows
        ],
    )
    about = (
        "Means over random targets. Total variation is that of the kept sets from drawing without replacement; what "
        "a finite number of draws leaves of it is the first rows' value."
    )
    return report_markdown(content, "# Which law beams are drawn from", table, about)


if __name__ == "__main__":
    run_command(measure)
