"""What each hand-written kernel saves of a round, against the compiled PyTorch that it replaces; needs a CUDA GPU.

From the repository's root: python -m experiments.speed.kernels --output runs/speed/kernels
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from experiments.speed.pass_costs import ROUNDS, recorded_start, round_tree
from experiments.speed.setting import Setting, backbone_of
from experiments.speed.timing import Timing, Work, interleaved_seconds, timed
from experiments.study import check_positive, chosen_device, circumstances, report_markdown, run_command, with_interval
from padrec import SpeculativeDecoder
from padrec.catalog import InputError
from padrec.decoding import CapturedGraph, LayerOperations, TreeOperations
from padrec.drafts.draft_operations import DraftOperations
from padrec.evaluation.report import check_writable, markdown_table, write_report

# What is left to PyTorch in each arm: the class whose methods take over, and their names.
_GROUPS: dict[str, tuple[type, tuple[str, ...]]] = {
    "tree growth": (TreeOperations, ("grow",)),
    "forced runs": (TreeOperations, ("add_forced_runs",)),
    "draft inputs": (DraftOperations, ("fuse",)),
    "linear maps": (LayerOperations, ("linear", "add", "normed")),
    "rotation": (LayerOperations, ("rotate_and_store",)),
    "attention": (LayerOperations, ("attention",)),
    "keeping": (LayerOperations, ("keep",)),
}
# Where operations of each class are chosen.
_CHOSEN_IN: dict[type, str] = {
    TreeOperations: "padrec.decoding.rounds.rounds.tree_operations_for",
    DraftOperations: "padrec.drafts.feature_draft.draft_operations_for",
    LayerOperations: "padrec.decoding.layers.fused_layers.operations_for",
}
_ALL = "all kernels"


def measure(
    output: Path,
    kernels: Sequence[str] = tuple(_GROUPS),
    shape: str = "28x1024",
    batch: int = 1,
    repeats: int = 15,
    device: str | None = None,
    seed: int = 0,
) -> None:
    """Time recorded rounds with every group of kernels left to PyTorch in turn; writes report.json and report.md.

    Args:
        output: folder of the report, new or without one.
        kernels: groups to leave to PyTorch in turn.
        shape: the target, LAYERSxWIDTH, with random weights.
        batch: rows decoded together.
        repeats: measurements of each arm, interleaved with those of all kernels.
        device: cuda; the kernels run nowhere else.
        seed: of weights and data.

    Raises:
        InputError: an unknown group, a size below 1, a wrong shape, no GPU, or a report that is already there.
    """
    if not set(kernels) <= set(_GROUPS):
        raise InputError(f"kernels {list(kernels)}: expected some of {list(_GROUPS)}")
    check_positive(batch=[batch], repeats=[repeats])
    backbone_of(shape)
    check_writable(output)
    place, dtype = chosen_device(device)
    if place.type != "cuda":
        raise InputError("kernels are compared on a GPU: needs a machine with a CUDA device")
    content = circumstances("experiments.speed.kernels", place, dtype, seed) | {"shape": shape, "batch": batch}
    with torch.inference_mode():
        setting = Setting.build(shape, place, dtype, seed)
        reference = _round(setting, batch)
        rows = []
        for name in kernels:
            recorded, seconds_to_record = timed(partial(_left_to_pytorch(name)(_round), setting, batch), place)
            arms = {_ALL: reference, name: recorded}
            found = {arm: 1000 * times for arm, times in interleaved_seconds(arms, place, repeats).items()}
            rows.append(
                {"kernels": name}
                | Timing.of(found[_ALL]).to_dict("round_ms")
                | Timing.of(found[name]).to_dict("without_ms")
                | Timing.of(found[name], found[_ALL]).to_dict("ratio")
                | {"recording_seconds": seconds_to_record}
            )
    content["rows"] = rows
    write_report(output, content, _markdown(content))


@contextmanager
def _left_to_pytorch(name: str) -> Iterator[None]:
    base, methods = _GROUPS[name]
    with ExitStack() as stack:
        # Every layer's weights, widths and places are shapes of their own.
        stack.enter_context(torch._dynamo.config.patch(recompile_limit=256, accumulated_recompile_limit=2048))
        from padrec.decoding.device.early_launch import launches_early
        from padrec.decoding.layers.triton_operations import TritonOperations
        from padrec.decoding.trees.triton_tree_operations import TritonTreeOperations
        from padrec.drafts.triton_draft_operations import TritonDraftOperations

        by_kernels: dict[type, type] = {
            TreeOperations: TritonTreeOperations,
            DraftOperations: TritonDraftOperations,
            LayerOperations: TritonOperations,
        }
        plain = {method: _compiled(base, method) for method in methods}
        mixed = type(f"Without{name.title().replace(' ', '')}", (by_kernels[base],), plain)
        arguments: dict[str, Any] = {"early": launches_early(torch.device("cuda"))} if base is LayerOperations else {}
        stack.enter_context(patch(_CHOSEN_IN[base], lambda *_: mixed(**arguments)))
        yield


def _compiled(base: type, method: str) -> Any:  # noqa: ANN401  # a method of any signature
    plain = getattr(base, method)
    if base is TreeOperations:
        return plain  # compiled by itself
    # The first argument, by whose device `compiled` decides, is the object.
    return torch.compile(plain, dynamic=False, options={"shape_padding": False})


def _round(setting: Setting, batch: int) -> Work:
    """A recorded round after its start, by the operations that are chosen now."""
    # A runner and a bound draft of their own, which choose their operations as they are made.
    runner = type(setting.runner)(setting.runner.model)
    decoder = SpeculativeDecoder(setting.draft, round_tree())
    rounds, start = recorded_start(setting, runner, decoder, setting.request, batch)
    return Work(CapturedGraph(rounds.round, setting.device), ROUNDS, before=start)


def _markdown(content: Mapping[str, Any]) -> str:
    table = markdown_table(
        ["left to PyTorch", "round (ms)", "with all kernels (ms)", "ratio (95 % interval)"],
        [
            [
                row["kernels"],
                f"{row['without_ms']:.3f}",
                f"{row['round_ms']:.3f}",
                with_interval(row, "ratio", ".3f"),
            ]
            for row in content["rows"]
        ],
    )
    title = f"# What kernels save of a round, {content['shape']}, batch {content['batch']}"
    about = "Each row replaces one group of kernels by compiled PyTorch; a ratio of 1.03 is 3 % of a round."
    return report_markdown(content, title, table, about)


if __name__ == "__main__":
    run_command(measure)
