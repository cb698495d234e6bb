"""Which tiles of linear maps and of attention make passes of few tokens fastest on a GPU.

From the repository's root: python -m experiments.speed.tiles --output runs/speed/tiles
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.speed.setting import backbone_of, drawn_on
from experiments.speed.timing import Timing, Work, interleaved_seconds
from experiments.study import check_positive, chosen_device, circumstances, report_markdown, run_command
from padrec import InputError, SemanticIDVocabulary
from padrec.decoding import CapturedGraph, LayerSession, Placement
from padrec.decoding.device.early_launch import launches_early
from padrec.decoding.layers.fused_layers import FusedLayers
from padrec.decoding.layers.tiles import (
    MOST_TOKENS,
    AttentionTile,
    AttentionTileChoice,
    HeldTile,
    LinearTile,
    Tile,
    TileChoice,
    attention_tile,
    linear_tile,
    streamed_tile,
)
from padrec.evaluation.report import check_writable, markdown_table, write_report
from padrec.targets import build_backbone

# A pass takes less than a millisecond: that many are timed in a row.
_CALLS = 10
# Relative to the largest output. Layers add up the rounding of half precision, not more.
_MOST_DIFFERENCE = 0.1


@dataclass(frozen=True)
class _Tiles:
    """Choices for both kinds of kernels; what is not named is what decoding takes."""

    linear: TileChoice = linear_tile
    attention: AttentionTileChoice = attention_tile


# Of 33 to 64 tokens and 1,024 outputs: by programs that read all inputs, and by 128 programs that share them.
_WHOLE = LinearTile(64, 32, 128, 4, 6)
_IN_4 = LinearTile(64, 32, 128, 4, 4, splits=4)
_IN_8 = LinearTile(64, 64, 128, 4, 4, splits=8)


def _instead(choose: Callable[[int, int, int, bool], Tile | None]) -> TileChoice:
    """Tiles of half-precision maps, by tokens, outputs, inputs and gating; where there is none, what decoding takes."""

    def tile(n_tokens: int, n_out: int, n_in: int, gated: bool, itemsize: int) -> Tile | None:
        own = choose(n_tokens, n_out, n_in, gated) if itemsize == 2 else None
        return own or linear_tile(n_tokens, n_out, n_in, gated, itemsize)

    return tile


@_instead
def _out_in_4(n_tokens: int, n_out: int, n_in: int, gated: bool) -> Tile | None:
    """From 33 tokens on attention's last map as the layer's last one, by programs that share its inputs."""
    return _IN_4 if not gated and 32 < n_tokens <= 64 and n_out <= 1024 else None


@_instead
def _streamed_32(n_tokens: int, n_out: int, n_in: int, gated: bool) -> Tile | None:
    """From 17 to 32 tokens, tiles of 32 tokens, not of 64."""
    return streamed_tile(n_tokens, n_out, n_in, gated, itemsize=2) if 16 < n_tokens <= 32 else None


def _gated(tile: LinearTile) -> TileChoice:
    """From 65 tokens on a tile for gated maps."""
    return _instead(lambda n_tokens, n_out, n_in, gated: tile if gated and n_tokens > 64 else None)


def _out_above_64(tile: Tile) -> TileChoice:
    """From 65 tokens on a tile for attention's last map, of 1,024 inputs."""
    return _instead(
        lambda n_tokens, n_out, n_in, gated: tile if not gated and n_tokens > 64 and n_in == n_out == 1024 else None
    )


def _few_outputs(of_many_inputs: LinearTile, of_few: LinearTile) -> TileChoice:
    """From 33 tokens on, tiles for maps of few outputs: of many inputs, as a layer's last one, and of few inputs."""

    @_instead
    def tile(n_tokens: int, n_out: int, n_in: int, gated: bool) -> Tile | None:
        if gated or n_tokens <= 32 or n_out > 1024:
            return None
        return of_many_inputs if n_in > 2 * n_out else of_few

    return tile


@_instead
def _half_the_tokens(n_tokens: int, n_out: int, n_in: int, gated: bool) -> Tile | None:
    """From 33 tokens on, twice as many programs, of 32 tokens each, which read half as many inputs."""
    if gated or n_tokens <= 32 or n_out > 4096:
        return None
    return LinearTile(32, 16, 256, 4, 4) if n_out <= 1024 else LinearTile(32, 32, 128, 4, 4)


def _all_tokens(splits: int) -> TileChoice:
    """From 65 to 128 tokens, programs of all tokens, which read weights once; those of few outputs share inputs."""

    @_instead
    def tile(n_tokens: int, n_out: int, n_in: int, gated: bool) -> Tile | None:
        if not 64 < n_tokens <= 128 or n_out > 4096:
            return None
        return LinearTile(128, 32, 128, 4, 3, splits if n_out <= 1024 and not gated else 1)

    return tile


def _for_large_passes(
    few: LinearTile | None = None, gate: LinearTile | None = None, others: LinearTile | None = None
) -> TileChoice:
    """Where `chosen` leaves all maps to the vendor, tiles for maps of few outputs, for gated maps and for others."""

    @_instead
    def tile(n_tokens: int, n_out: int, n_in: int, gated: bool) -> Tile | None:
        if n_tokens <= MOST_TOKENS:
            return None
        return gate if gated else few if n_out <= 1024 else others

    return tile


# Of 64 and of 128 tokens; two programs share a multiprocessor.
_LARGE = LinearTile(64, 64, 128, 4, 3)
_LARGE_GATE = LinearTile(64, 64, 64, 4, 4)
_LARGE_IN_4 = LinearTile(64, 64, 128, 4, 3, splits=4)
_LARGER = LinearTile(128, 64, 64, 8, 4)
_LARGER_GATE = LinearTile(128, 64, 64, 8, 3)
_LARGER_IN_4 = LinearTile(128, 64, 64, 8, 4, splits=4)


def _attention(columns: int, warps: int, stages: int, queries: int = 16, **more: Any) -> AttentionTileChoice:
    """Programs of `queries` queries, or of all where there are fewer, in half precision."""

    def tile(n_queries: int, n_heads: int, size: int, itemsize: int, capacity: int) -> AttentionTile:
        if itemsize != 2:
            return attention_tile(n_queries, n_heads, size, itemsize, capacity)
        return AttentionTile(max(16, min(queries, 1 << (n_queries - 1).bit_length())), columns, warps, stages, **more)

    return tile


def _in_parts(splits: int) -> AttentionTileChoice:
    """What decoding takes, with the columns divided among `splits` programs."""
    return lambda *sizes: replace(attention_tile(*sizes), splits=splits)


CHOICES: Mapping[str, _Tiles] = {
    "chosen": _Tiles(),
    "streamed": _Tiles(linear=streamed_tile),
    "down and out whole": _Tiles(linear=_few_outputs(LinearTile(64, 16, 256, 4, 3), _WHOLE)),
    "down in 4, out whole": _Tiles(linear=_few_outputs(_IN_4, _WHOLE)),
    "down in 8, out in 4": _Tiles(linear=_few_outputs(_IN_8, _IN_4)),
    "out in 4": _Tiles(linear=_out_in_4),
    "17 to 32 streamed": _Tiles(linear=_streamed_32),
    "gate in 4 stages": _Tiles(linear=_gated(LinearTile(64, 32, 128, 4, 4))),
    "gate in 2 stages": _Tiles(linear=_gated(LinearTile(64, 32, 128, 4, 2))),
    "gate of 64 inputs": _Tiles(linear=_gated(LinearTile(64, 32, 64, 4, 6))),
    "out of 16": _Tiles(linear=_out_above_64(LinearTile(64, 16, 256, 4, 3))),
    "out held": _Tiles(linear=_out_above_64(HeldTile(32, 16, 4, 4, 128))),
    "32 tokens": _Tiles(linear=_half_the_tokens),
    "128 tokens": _Tiles(linear=_all_tokens(1)),
    "128 tokens, in 4": _Tiles(linear=_all_tokens(4)),
    "large: down and out in 4": _Tiles(linear=_for_large_passes(few=_LARGE_IN_4)),
    "large: gate": _Tiles(linear=_for_large_passes(gate=_LARGE_GATE)),
    "large: all": _Tiles(linear=_for_large_passes(_LARGE_IN_4, _LARGE_GATE, _LARGE)),
    "large: all, of 128": _Tiles(linear=_for_large_passes(_LARGER_IN_4, _LARGER_GATE, _LARGER)),
    "attention 64": _Tiles(attention=_attention(64, 4, 2)),
    "attention 128, 8 warps": _Tiles(attention=_attention(128, 8, 2)),
    "attention 256, 4 warps": _Tiles(attention=_attention(256, 4, 2)),
    "attention 256, 16 warps": _Tiles(attention=_attention(256, 16, 2)),
    "attention 512, 16 warps": _Tiles(attention=_attention(512, 16, 2)),
    "attention 256, 8 warps": _Tiles(attention=_attention(256, 8, 2)),
    "attention 64 of 32 queries": _Tiles(attention=_attention(64, 4, 3, 32)),
    "attention 128 of 32 queries": _Tiles(attention=_attention(128, 4, 2, 32)),
    "attention 256 of 32 queries, 8 warps": _Tiles(attention=_attention(256, 8, 2, 32)),
    "attention 64 of 64 queries": _Tiles(attention=_attention(64, 4, 3, 64)),
    "attention 128 of 64 queries, 8 warps": _Tiles(attention=_attention(128, 8, 2, 64)),
    "attention in 1": _Tiles(attention=_in_parts(1)),
    "attention in 2": _Tiles(attention=_in_parts(2)),
    "attention in 4": _Tiles(attention=_in_parts(4)),
    "attention in 8": _Tiles(attention=_in_parts(8)),
    "attention in 16": _Tiles(attention=_in_parts(16)),
    "attention 64, 3 stages, in 8": _Tiles(attention=_attention(64, 4, 3, splits=8)),
    "attention 128, 8 warps, in 8": _Tiles(attention=_attention(128, 8, 2, splits=8)),
    "attention 64 of 32 queries, in 4": _Tiles(attention=_attention(64, 4, 3, 32, splits=4)),
    "attention 64 of 32 queries, in 8": _Tiles(attention=_attention(64, 4, 3, 32, splits=8)),
    "attention 64 of 64 queries, in 2": _Tiles(attention=_attention(64, 4, 3, 64, apart=True, splits=2)),
    "attention 128 of 64 queries, in 2": _Tiles(attention=_attention(128, 4, 2, 64, apart=True, splits=2)),
    "attention 64 of 128 queries, in 4": _Tiles(attention=_attention(64, 8, 3, 128, apart=True, splits=4)),
}


class _Switch:
    """Choices that can be changed between two recordings of the same layers."""

    tiles = _Tiles()

    def linear(self, *sizes: Any) -> Tile | None:
        return self.tiles.linear(*sizes)

    def attention(self, *sizes: Any) -> AttentionTile:
        return self.tiles.attention(*sizes)


def measure(
    output: Path,
    shape: str = "28x1024",
    nodes: Sequence[int] = (1, 10, 16, 32, 64, 128),
    batch: int = 1,
    choices: Sequence[str] = tuple(CHOICES),
    prefix: int = 160,
    repeats: int = 15,
    device: str | None = None,
    seed: int = 0,
) -> None:
    """Time whole passes of random layers under some choices of tiles; writes report.json and report.md.

    Args:
        output: folder of the report, new or without one.
        shape: of the target, LAYERSxWIDTH.
        nodes: tokens of each row of the passes.
        batch: rows.
        choices: of tiles; the first is what the others are compared with.
        prefix: tokens that were read before a pass.
        repeats: measurements of everything.
        device: cuda, which is also the default: tiles are those of GPU kernels.
        seed: of the weights and inputs.

    Raises:
        InputError: a size below 1, a wrong shape, an unknown choice, no GPU, or a report that is already there.
    """
    check_positive(nodes=nodes, batch=[batch], repeats=[repeats], prefix=[prefix])
    backbone_of(shape)
    unknown = [name for name in choices if name not in CHOICES]
    if unknown or not choices:
        raise InputError(f"choices {list(choices)}: expected some of {list(CHOICES)}")
    check_writable(output)
    place, dtype = chosen_device(device)
    if place.type != "cuda":
        raise InputError("tiles are those of GPU kernels: needs a machine with a CUDA GPU")
    content = circumstances("experiments.speed.tiles", place, dtype, seed)
    with torch.inference_mode():
        passes = _passes(shape, nodes, batch, choices, prefix, repeats, place, dtype, seed)
    content |= {"shape": shape, "batch": batch, "prefix": prefix, "passes": passes}
    write_report(output, content, _markdown(content, choices))


def _passes(
    shape: str,
    nodes: Sequence[int],
    batch: int,
    choices: Sequence[str],
    prefix: int,
    repeats: int,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
) -> list[dict[str, Any]]:
    switch = _Switch()
    layers, width = _random_layers(shape, switch, device, dtype, seed)
    session = layers.open(batch, prefix + max(nodes))
    start = torch.zeros(batch, dtype=torch.long, device=device)
    session(
        torch.randn(batch, prefix, width, device=device, dtype=dtype),
        Placement(start, torch.arange(prefix, device=device).expand(batch, -1)),
    )
    rows = []
    for count in nodes:
        hidden = torch.randn(batch, count, width, device=device, dtype=dtype)
        # A tree that is one path, read as any tree is.
        ancestors = torch.ones(batch, count, count, dtype=torch.bool, device=device).tril()
        placement = Placement(start + prefix, torch.arange(count, device=device).expand(batch, -1), 0, ancestors)
        recordings, outputs = {}, {}
        for name in choices:
            switch.tiles = CHOICES[name]
            found = torch.empty_like(hidden)
            recordings[name] = CapturedGraph(partial(_read, session, hidden, placement, found), device)
            recordings[name]()
            outputs[name] = found.float()
        seconds = interleaved_seconds({name: Work(run, _CALLS) for name, run in recordings.items()}, device, repeats)
        rows += [
            {"nodes": count, "choice": name, "difference": _difference(outputs[name], outputs[choices[0]])}
            | Timing.of(1e6 * seconds[name]).to_dict("microseconds")
            for name in choices
        ]
    return rows


def _read(session: LayerSession, hidden: Tensor, placement: Placement, found: Tensor) -> None:
    found.copy_(session(hidden, placement)[0])


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def _random_layers(
    shape: str, switch: _Switch, device: torch.device, dtype: torch.dtype, seed: int
) -> tuple[FusedLayers, int]:
    # Triton comes with PyTorch's GPU builds only.
    from padrec.decoding.layers.triton_operations import TritonOperations

    torch.manual_seed(seed)
    with drawn_on(device, dtype):
        model = build_backbone(backbone_of(shape), SemanticIDVocabulary([8]))
    base: Any = model.eval().requires_grad_(False).base_model
    operations = TritonOperations(launches_early(device), switch.linear, switch.attention)
    layers = FusedLayers(base.layers, model.config, base.rotary_emb, base.norm, operations)
    return layers, int(model.config.hidden_size)


def _markdown(content: Mapping[str, Any], choices: Sequence[str]) -> str:
    found = {(row["nodes"], row["choice"]): row for row in content["passes"]}
    counts = list(dict.fromkeys(count for count, _ in found))
    table = markdown_table(
        ["choice", *map(str, counts)],
        [[name, *(_cell(found[count, name]) for count in counts)] for name in choices],
    )
    about = (
        f"Microseconds of the layers' pass behind {content['prefix']} tokens, by its own tokens, each of "
        f"{content['batch']} rows; where a choice names one kind of kernel, the other is as chosen. An exclamation "
        f"mark: outputs differ from those of {choices[0]} by more than {_MOST_DIFFERENCE:.0%} of the largest."
    )
    title = f"# Tiles of linear maps and attention, {content['shape']}"
    return report_markdown(content, title, table, about)


def _cell(row: Mapping[str, Any]) -> str:
    # Not the other way round, so that a difference that is no number is marked.
    return f"{row['microseconds']:.0f}" + ("" if row["difference"] <= _MOST_DIFFERENCE else " !")


if __name__ == "__main__":
    run_command(measure)
