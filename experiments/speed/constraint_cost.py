"""What a large catalog's constraint costs for one token."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from experiments.speed.setting import large_catalog
from experiments.speed.timing import Timing, Work, interleaved_seconds, timed
from padrec import ListRequest, Sampling
from padrec.decoding import CapturedGraph, CatalogConstraint, Choice, choose

_LIST_LENGTH = 10
# What takes microseconds is measured that many times in a row.
_CALLS = 20


def constraint_cost(
    n_items: int, batches: Sequence[int], nodes: Sequence[int], repeats: int, device: torch.device, seed: int
) -> dict[str, Any]:
    """What may follow, the choice among it and the states after it: under the constraint, with half of all leaves
    excluded, and without a constraint. Beside it what a batch that excludes leaves begins with.

    Args:
        n_items: items of the made-up catalog.
        batches: rows decoded together.
        nodes: of each row; the fewest and the most are measured.
        repeats: measurements of each step.
        device: where.
        seed: of the catalog.
    """
    catalog, vocabulary = large_catalog(n_items, seed)
    build = partial(ListRequest.build, catalog, vocabulary, _LIST_LENGTH, device=device)
    constrained, trie_seconds = timed(build, device)
    requests = {"constrained": constrained, "free": build(constrained=False)}
    steps = []
    for batch in batches:
        for count in sorted({min(nodes), max(nodes)}):
            excluding = constrained.excluding(batch)
            begin = partial(_exclude_half, excluding, batch, device)
            begin()
            all_requests = {**requests, "excluding": excluding}
            works = {name: Work(_step(request, batch, count, device), _CALLS) for name, request in all_requests.items()}
            works["begin"] = Work(CapturedGraph(begin, device), _CALLS)
            seconds = interleaved_seconds(works, device, repeats)
            steps.append(
                {"batch": batch, "nodes": count}
                | Timing.of(1000 * seconds["constrained"]).to_dict("milliseconds")
                | Timing.of(1000 * seconds["free"]).to_dict("free_milliseconds")
                | Timing.of(1000 * seconds["excluding"]).to_dict("excluding_milliseconds")
                | Timing.of(1000 * seconds["begin"]).to_dict("begin_excluding_milliseconds")
            )
    return {"items": n_items, "trie_seconds": trie_seconds, "steps": steps}


def _exclude_half(request: ListRequest, batch: int, device: torch.device) -> None:
    """Begin a batch whose rows exclude every other leaf."""
    assert isinstance(request.constraint, CatalogConstraint)
    leaves = torch.arange(0, request.catalog.n_leaves, 2, device=device)
    request.constraint.exclude(leaves.repeat(batch, 1))


def _step(request: ListRequest, batch: int, count: int, device: torch.device) -> CapturedGraph:
    """One token on `[batch, count]` states that stand at all slots in turn."""
    constraint, vocabulary, codes = request.constraint, request.vocabulary, request.catalog.codes
    generator = torch.Generator().manual_seed(0)
    items = torch.randint(len(codes), (batch, count), generator=generator)
    path = vocabulary.encode(codes[items]).to(device)  # [B, N, L + 1]
    slot = (torch.arange(batch * count, device=device) % vocabulary.n_slots).view(batch, count)
    states = constraint.initial(batch, device).unsqueeze().gather(torch.zeros_like(slot))
    for place in range(vocabulary.n_slots - 1):
        further = constraint.advance(states, path[..., place])
        picked = {}
        for name, value in vars(further).items():
            moves = (slot > place).view(batch, count, *[1] * (value.ndim - 2))
            picked[name] = torch.where(moves, value, getattr(states, name))
        states = type(states)(**picked)
    logits = torch.randn(batch, count, vocabulary.size, generator=generator).to(device)
    depths = torch.zeros(batch, count, dtype=torch.long, device=device)
    choice = Choice(Sampling(), None)

    def step() -> None:
        choose(logits, states, depths, choice, constraint)

    return CapturedGraph(step, device)
