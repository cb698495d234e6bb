from pathlib import Path

import pytest
import torch

from experiments.speed.tiles import CHOICES, main
from padrec.decoding.linear_tiles import HeldTile


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("device", [[], ["--device=cpu"]])
def test_without_a_gpu_there_are_no_tiles_to_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], device: list[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([f"--output={tmp_path}/report", *device])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: tiles are those of GPU kernels: needs a machine with a CUDA GPU\n"


def test_unknown_choices_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([f"--output={tmp_path}/report", "--choices=[streamed,other]"])
    assert "expected some of ['chosen'" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_all_choices_are_timed_and_compute_the_same(tmp_path: Path) -> None:
    main([f"--output={tmp_path}/report", "--shape=2x1024", "--nodes=[2,64]", "--repeats=2"])
    assert "!" not in (tmp_path / "report" / "report.md").read_text().partition("An exclamation")[0]


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("n_tokens", [2, 16, 64])
@pytest.mark.parametrize(("n_out", "n_in", "gated"), [(2048, 1024, False), (3072, 1024, True), (1024, 3072, False)])
def test_no_choice_holds_more_than_there_is(name: str, n_tokens: int, n_out: int, n_in: int, gated: bool) -> None:
    tile = CHOICES[name].linear(n_tokens, n_out, n_in, gated, 2)
    assert n_out % tile.outputs == 0
    if isinstance(tile, HeldTile):
        assert 1 <= tile.held <= n_in // 256


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("n_queries", [2, 20, 128])
@pytest.mark.parametrize("itemsize", [2, 4])
def test_blocks_of_columns_fit_into_memory(name: str, n_queries: int, itemsize: int) -> None:
    tile = CHOICES[name].attention(n_queries, 8, 64, itemsize)
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
    choice = CHOICES[name].linear
    assert choice(64, 1024, 3072, False, 2).splits == down
    assert choice(64, 1024, 1024, False, 2).splits == out
    assert choice(16, 1024, 3072, False, 2).splits == choice(64, 3072, 1024, True, 2).splits == 1
