"""What target passes, draft passes and whole rounds cost."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from experiments.speed.setting import Setting
from experiments.speed.timing import Timing, Work, interleaved_seconds, timed
from padrec import DynamicTree, ListRequest, SpeculativeDecoder, TransformersRunner
from padrec.decoding import CapturedGraph, DraftPlan, Rounds
from padrec.decoding.layers.prompt_shape import roomy

_ROUND_PREFIX = 128
# Room in the cache after prompt and list: for a round's tree, and for what the draft reads of it.
_TREE_ROOM = 88
# Rounds after a start that are timed together: a list of ten items has that many left even if half of them are drafted.
ROUNDS = 6
# Forced tokens that a round adds to its tree.
_FORCED_NODES = 12


def round_tree() -> DynamicTree:
    """The tree of a round: with forced tokens 64 nodes, which fill a GPU's tile."""
    return DynamicTree(depth=10, width=8, nodes=52)


def recorded_start(
    setting: Setting, runner: TransformersRunner, decoder: SpeculativeDecoder, request: ListRequest, batch: int
) -> tuple[Rounds, CapturedGraph]:
    """Rounds of a decoder, and their start after a prefix, recorded, since a recorded round reads what it leaves."""
    capacity = roomy(_ROUND_PREFIX + request.n_tokens + _TREE_ROOM, setting.device)
    rounds = decoder.rounds(runner, request, decoder.draft.bind(runner, request), batch, capacity)
    keys = torch.zeros(batch, dtype=torch.long, device=setting.device)
    start = partial(rounds.start, setting.prompts(batch, _ROUND_PREFIX), keys)
    return rounds, CapturedGraph(start, setting.device)


def target_passes(
    setting: Setting, batch: int, prefix: int, nodes: Sequence[int], repeats: int
) -> list[dict[str, Any]]:
    """Passes over random trees of some numbers of nodes after a prefix."""
    device = setting.device
    target = setting.runner.open(batch, roomy(prefix + max(nodes), device))
    target.prefill(setting.prompts(batch, prefix))
    recorder = _Recorder(device)
    for count in nodes:
        recorder.record(str(count), partial(target.verify, setting.tree(batch, count)))
    works = {name: Work(recording) for name, recording in recorder.recordings.items()}
    seconds = interleaved_seconds(works, device, repeats)
    return [
        {"batch": batch, "prefix": prefix, "nodes": count}
        | Timing.of(1000 * seconds[str(count)]).to_dict("milliseconds")
        | {"recording_seconds": recorder.seconds[str(count)]}
        for count in nodes
    ]


def round_cost(setting: Setting, batch: int, repeats: int) -> dict[str, Any]:
    """A round beside the passes of target and draft that it holds, all of them on the same cache."""
    device, runner, request, expansion = setting.device, setting.runner, setting.request, round_tree()
    capacity = roomy(_ROUND_PREFIX + request.n_tokens + _TREE_ROOM, device)
    decoder = SpeculativeDecoder(setting.draft, expansion)
    bound = setting.draft.bind(runner, request)
    rounds = decoder.rounds(runner, request, bound, batch, capacity)
    keys = torch.zeros(batch, dtype=torch.long, device=device)
    lists, extends = rounds.lists, expansion.draft_passes - 1
    recorder = _Recorder(device)
    recorder.record("start", partial(rounds.start, setting.prompts(batch, _ROUND_PREFIX), keys))
    recorder.record("round", rounds.round)
    start = recorder.recordings["start"]
    start()
    tree = setting.tree(batch, expansion.nodes + _FORCED_NODES)
    target = runner.open(batch, capacity)
    prompts = setting.prompts(batch, _ROUND_PREFIX)
    _, features = target.prefill(prompts)
    plan = DraftPlan(runner, request, batch, capacity, expansion.draft_rows, decoder.max_depth(request))
    alone_draft = bound(plan)
    alone_draft.begin(prompts, features, lists.last, lists.state.slot)

    def draft(n_passes: int) -> None:
        tokens = lists.last[:, None].expand(-1, expansion.width).contiguous()
        alone_draft.root_logits()
        for depth in range(1, n_passes + 1):
            alone_draft.extend(tokens, torch.zeros_like(tokens), torch.zeros_like(tokens), depth)

    recorder.record("target pass", partial(target.verify, tree))
    recorder.record("draft passes", partial(draft, extends))
    recorder.record("first draft pass", partial(draft, 0))
    calls = {"round": ROUNDS}
    works = {name: Work(run, calls.get(name, 1), before=start) for name, run in recorder.recordings.items()}
    found = {name: 1000 * seconds for name, seconds in interleaved_seconds(works, device, repeats).items()}
    alone = found["target pass"] + found["draft passes"]
    one_pass = (found["draft passes"] - found["first draft pass"]) / max(extends, 1)
    return {
        "batch": batch,
        "prefix": _ROUND_PREFIX,
        "nodes": tree.tokens.shape[1],
        "draft_passes": expansion.draft_passes,
        "draft_width": expansion.width,
        **Timing.of(found["round"]).to_dict("round_ms"),
        **Timing.of(alone).to_dict("passes_ms"),
        **Timing.of(found["round"], alone).to_dict("round_over_passes"),
        **Timing.of(found["target pass"]).to_dict("target_pass_ms"),
        **Timing.of(found["draft passes"]).to_dict("draft_passes_ms"),
        **Timing.of(one_pass).to_dict("one_draft_pass_ms"),
        **Timing.of(found["start"]).to_dict("start_ms"),
        "start_recording_seconds": recorder.seconds["start"],
        "round_recording_seconds": recorder.seconds["round"],
    }


class _Recorder:
    """Records work by name, and how long that took."""

    def __init__(self, device: torch.device) -> None:
        self.recordings: dict[str, CapturedGraph] = {}
        self.seconds: dict[str, float] = {}
        self._device = device

    def record(self, name: str, function: Callable[[], object]) -> None:
        def work() -> None:
            function()

        self.recordings[name], self.seconds[name] = timed(partial(CapturedGraph, work, self._device), self._device)
