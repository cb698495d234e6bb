from pathlib import Path

import pytest
import torch

from experiments.speed.tiles import CHOICES, measure
from experiments.study import run_command
from padrec.decoding.layers.tiles import HeldTile, Tile


def tile_of(name: str, n_tokens: int, n_out: int, n_in: int, gated: bool) -> Tile:
    tile = CHOICES[name].linear(n_tokens, n_out, n_in, gated, 2)
    assert tile is not None, "left to the vendor"
    return tile


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("device", [[], ["--device=cpu"]])
def test_without_a_gpu_there_are_no_tiles_to_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], device: list[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run_command(measure, [f"--output={tmp_path}/report", *device])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: tiles are those of GPU kernels: needs a machine with a CUDA GPU\n"


def test_unknown_choices_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_command(measure, [f"--output={tmp_path}/report", "--choices=[streamed,other]"])
    assert "expected some of ['chosen'" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_all_choices_are_timed_and_compute_the_same(tmp_path: Path) -> None:
    run_command(
        measure, [f"--output={tmp_path}/report", "--shape=2x1024", "--nodes=[2,64]", "--batch=3", "--repeats=2"]
    )
    assert "!" not in (tmp_path / "report" / "report.md").read_text().partition("An exclamation")[0]


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("n_tokens", [2, 16, 64])
@pytest.mark.parametrize(("n_out", "n_in", "gated"), [(2048, 1024, False), (3072, 1024, True), (1024, 3072, False)])
def test_no_choice_holds_more_than_there_is(name: str, n_tokens: int, n_out: int, n_in: int, gated: bool) -> None:
    tile = tile_of(name, n_tokens, n_out, n_in, gated)
    assert n_out % tile.outputs == 0
    if isinstance(tile, HeldTile):
        assert 1 <= tile.held <= n_in // 256


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("n_queries", [2, 20, 128])
@pytest.mark.parametrize("itemsize", [2, 4])
def test_blocks_of_columns_fit_into_memory(name: str, n_queries: int, itemsize: int) -> None:
    tile = CHOICES[name].attention(n_queries, 8, 64, itemsize, 256)
    assert tile.queries == 16 or tile.queries < 2 * n_queries
    assert (tile.queries + 2 * (tile.stages - 1) * tile.columns) * 64 * itemsize <= 200 * 1024


@pytest.mark.parametrize(
    ("name", "down", "out"),
    [
        ("chosen", 4, 1),
        ("out in 4", 4, 4),
        ("down and out whole", 1, 1),
        ("down in 4, out whole", 4, 1),
        ("down in 8, out in 4", 8, 4),
    ],
)
def test_maps_of_few_outputs_are_split(name: str, down: int, out: int) -> None:
    assert tile_of(name, 64, 1024, 3072, False).splits == down
    assert tile_of(name, 64, 1024, 1024, False).splits == out
    assert tile_of(name, 16, 1024, 3072, False).splits == tile_of(name, 64, 3072, 1024, True).splits == 1


@pytest.mark.parametrize(
    ("name", "by_kernels"),
    [("chosen", []), ("large: down and out in 4", [2, 3]), ("large: gate", [1]), ("large: all", [0, 1, 2, 3])],
)
def test_maps_of_large_passes_are_left_to_the_vendor_or_not(name: str, by_kernels: list[int]) -> None:
    maps = [(2048, 1024, False), (3072, 1024, True), (1024, 3072, False), (1024, 1024, False)]
    for n_tokens in (129, 512):
        tiles = [CHOICES[name].linear(n_tokens, *sizes, 2) for sizes in maps]
        assert [place for place, tile in enumerate(tiles) if tile is not None] == by_kernels
