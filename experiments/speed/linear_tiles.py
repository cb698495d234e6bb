"""Which tiles of the linear maps make passes of few tokens fastest on a GPU.

From the repository's root: python -m experiments.speed.linear_tiles --output runs/speed/tiles
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.speed.setting import backbone_of, drawn_on
from experiments.speed.study import check_positive, chosen_device, circumstances, circumstances_markdown, run_command
from experiments.speed.timing import Timing, Work, interleaved_seconds
from padrec import InputError, SemanticIDVocabulary
from padrec.decoding import Placement, Recording
from padrec.decoding.cached_layers import FusedLayers
from padrec.decoding.linear_tiles import HeldTile, Tile, TileChoice, held_tile, linear_tile, streamed_tile
from padrec.evaluation.report import check_writable, markdown_table, write_report
from padrec.targets import build_backbone

# A pass takes less than a millisecond: so many are timed in a row.
_CALLS = 10
# Relative to the largest output. Layers add up the rounding of half precision, not more.
_MOST_DIFFERENCE = 0.1


def _eight_warps(*sizes: Any) -> Tile:
    tile = streamed_tile(*sizes)
    return replace(tile, warps=8) if tile.tokens == 64 else tile


def _other_gate(*sizes: Any) -> Tile:
    """Other programs for gated maps: of fewer outputs, streamed from 17 tokens on, then of more warps."""
    tile = held_tile(*sizes)
    n_tokens, _, _, gated, _ = sizes
    if tile is None or (gated and n_tokens > 16):
        return _eight_warps(*sizes)
    return replace(tile, outputs=8) if gated else tile


def _unspread(*sizes: Any) -> Tile:
    tile = linear_tile(*sizes)
    return replace(tile, spread=False) if isinstance(tile, HeldTile) else tile


def _whole(*sizes: Any) -> Tile:
    """Programs that hold all of their weights, though fewer of them then have room beside the kernel before."""
    tile = linear_tile(*sizes)
    n_in = sizes[2]
    return replace(tile, held=n_in // 256, registers=None) if isinstance(tile, HeldTile) else tile


def _down_streamed(*sizes: Any) -> Tile:
    """Maps of many inputs streamed, so that their programs leave registers to those of the next map."""
    _, n_out, n_in, _, _ = sizes
    return streamed_tile(*sizes) if n_in > 2 * n_out else _whole(*sizes)


CHOICES: Mapping[str, TileChoice] = {
    "streamed": streamed_tile,
    "chosen": linear_tile,
    "other gate": _other_gate,
    "unspread": _unspread,
    "whole": _whole,
    "down streamed": _down_streamed,
    "eight warps": _eight_warps,
}


class _Switch:
    """A choice that can be changed between two recordings of the same layers."""

    choice: TileChoice = staticmethod(streamed_tile)

    def __call__(self, n_tokens: int, n_out: int, n_in: int, gated: bool, itemsize: int) -> Tile:
        return self.choice(n_tokens, n_out, n_in, gated, itemsize)


def measure(
    output: Path,
    shape: str = "28x1024",
    nodes: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128),
    choices: Sequence[str] = tuple(CHOICES),
    prefix: int = 128,
    repeats: int = 15,
    device: str | None = None,
    seed: int = 0,
) -> None:
    """Time whole passes of random layers under some choices of tiles; writes report.json and report.md.

    Args:
        output: folder of the report, new or without one.
        shape: of the target, LAYERSxWIDTH.
        nodes: tokens of the passes.
        choices: of tiles; the first is what the others are compared with.
        prefix: tokens that were read before a pass.
        repeats: measurements of everything.
        device: cuda, which is also the default: tiles are those of GPU kernels.
        seed: of the weights and inputs.

    Raises:
        InputError: a size below 1, a wrong shape, an unknown choice, no GPU, or a report that is already there.
    """
    check_positive(nodes=nodes, repeats=[repeats], prefix=[prefix])
    backbone_of(shape)
    unknown = [name for name in choices if name not in CHOICES]
    if unknown or not choices:
        raise InputError(f"choices {list(choices)}: expected some of {list(CHOICES)}")
    check_writable(output)
    place, dtype = chosen_device(device)
    if place.type != "cuda":
        raise InputError("tiles are those of GPU kernels: needs a machine with a CUDA GPU")
    content = circumstances("experiments.speed.linear_tiles", place, dtype, seed)
    with torch.inference_mode():
        passes = _passes(shape, nodes, choices, prefix, repeats, place, dtype, seed)
    content |= {"shape": shape, "prefix": prefix, "passes": passes}
    write_report(output, content, _markdown(content, choices))


def _passes(
    shape: str,
    nodes: Sequence[int],
    choices: Sequence[str],
    prefix: int,
    repeats: int,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
) -> list[dict[str, Any]]:
    switch = _Switch()
    layers, width = _random_layers(shape, switch, device, dtype, seed)
    layers.reserve(1, prefix + max(nodes))
    start = torch.zeros(1, dtype=torch.long, device=device)
    layers(
        torch.randn(1, prefix, width, device=device, dtype=dtype),
        Placement(start, torch.arange(prefix, device=device)[None]),
    )
    rows = []
    for count in nodes:
        hidden = torch.randn(1, count, width, device=device, dtype=dtype)
        # A tree that is one path, read as any tree is.
        ancestors = torch.ones(1, count, count, dtype=torch.bool, device=device).tril()
        positions = prefix + torch.arange(count, device=device)[None]
        placement = Placement(start + prefix, positions, 0, ancestors)
        recordings, outputs = {}, {}
        for name in choices:
            switch.choice = CHOICES[name]
            found = torch.empty_like(hidden)
            recordings[name] = Recording(partial(_read, layers, hidden, placement, found), device)
            recordings[name]()
            outputs[name] = found.float()
        seconds = interleaved_seconds({name: Work(run, _CALLS) for name, run in recordings.items()}, device, repeats)
        rows += [
            {"nodes": count, "choice": name, "difference": _difference(outputs[name], outputs[choices[0]])}
            | Timing.of(1e6 * seconds[name]).to_dict("microseconds")
            for name in choices
        ]
    return rows


def _read(layers: FusedLayers, hidden: Tensor, placement: Placement, found: Tensor) -> None:
    found.copy_(layers(hidden, placement))


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def _random_layers(
    shape: str, tiles: TileChoice, device: torch.device, dtype: torch.dtype, seed: int
) -> tuple[FusedLayers, int]:
    # Triton comes with PyTorch's GPU builds only.
    from padrec.decoding.triton_operations import TritonOperations

    torch.manual_seed(seed)
    with drawn_on(device, dtype):
        model = build_backbone(backbone_of(shape), SemanticIDVocabulary([8]))
    base: Any = model.eval().requires_grad_(False).base_model
    operations = TritonOperations(torch.cuda.get_device_capability(device) >= (9, 0), tiles)
    layers = FusedLayers(base.layers, model.config, base.rotary_emb, base.norm, operations)
    return layers, int(model.config.hidden_size)


def _markdown(content: Mapping[str, Any], choices: Sequence[str]) -> str:
    found = {(row["nodes"], row["choice"]): row for row in content["passes"]}
    counts = dict.fromkeys(count for count, _ in found)
    table = markdown_table(
        ["nodes", *choices],
        [[str(count), *(_cell(found[count, name]) for name in choices)] for count in counts],
    )
    about = (
        f"Microseconds of the layers' pass behind {content['prefix']} tokens. An exclamation mark: outputs differ from "
        f"those of {choices[0]} by more than {_MOST_DIFFERENCE:.0%} of the largest."
    )
    title = f"# Tiles of linear maps, {content['shape']}"
    return "\n\n".join([title, table, about, circumstances_markdown(content)]) + "\n"


def _cell(row: Mapping[str, Any]) -> str:
    # Not the other way round, so that a difference that is no number is marked.
    return f"{row['microseconds']:.0f}" + ("" if row["difference"] <= _MOST_DIFFERENCE else " !")


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    run_command(measure, arguments)


if __name__ == "__main__":
    main()
