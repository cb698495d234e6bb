"""Quantizers by the program: fit, validate, predict."""

import json
import shlex
from pathlib import Path

import pytest
import torch

from padrec.catalog import Catalog
from padrec.cli import main
from padrec.data.readers.semantic_id_index import read_index
from padrec.quantization import ItemEmbeddings, ResidualKMeans, RQVAEQuantizer, count_collisions
from tests.tiny_training import logged

_CONFIG = Path(__file__).parents[1] / "conf" / "quantizer.yaml"
_K_MEANS = "--model=padrec.ResidualKMeansQuantizer --model.init_args.codebook_sizes=[6,5,8]"
_N_ITEMS = 90


def embeddings() -> ItemEmbeddings:
    """Items in 30 groups of three equal ones."""
    vectors = torch.randn(_N_ITEMS // 3, 7, generator=torch.Generator().manual_seed(0)).repeat(3, 1)
    return ItemEmbeddings([f"i{item}" for item in range(_N_ITEMS)], vectors)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    embeddings().save(tmp_path / "items.safetensors")
    monkeypatch.setenv("PADREC_TEST_EMBEDDINGS", str(tmp_path / "items.safetensors"))
    monkeypatch.setenv("PADREC_TEST_RUNS", str(tmp_path))
    return tmp_path


def run(stage: str, arguments: str = "") -> None:
    main([stage, "--config", str(_CONFIG), *shlex.split(arguments)])


def checkpoint(runs: Path) -> Path:
    return runs / "quantizer" / "checkpoints" / "last.ckpt"


def test_a_fit_logs_losses_codebook_use_and_collisions(runs: Path) -> None:
    run("fit", "--trainer.max_epochs=30 --model.init_args.learning_rate=0.01")
    losses = logged(runs / "quantizer", "train/reconstruction")
    assert len(losses) == 30 * 3
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
    for slot in range(3):
        assert all(0 < used <= 1 for used in logged(runs / "quantizer", f"val/codes_used/slot_{slot}"))
        assert all(1 <= value <= 8 for value in logged(runs / "quantizer", f"val/perplexity/slot_{slot}"))
        assert len(logged(runs / "quantizer", f"train/restarted_codes/slot_{slot}")) == 29
        assert len(logged(runs / "quantizer", f"val/reconstruction/slot_{slot}")) == 15
    # Equal items have equal IDs.
    assert min(logged(runs / "quantizer", "val/collisions")) >= _N_ITEMS * 2 / 3
    header = (runs / "quantizer" / "metrics.csv").read_text().splitlines()[0]
    assert RQVAEQuantizer.load(checkpoint(runs)).metric_names() == set(header.split(",")) - {"epoch", "step"}


def test_the_separation_loss_is_part_of_the_loss_by_its_weight(runs: Path) -> None:
    run("fit", "--trainer.max_epochs=1 --model.init_args.separation=10 --trainer.check_val_every_n_epoch=1")
    parts = zip(
        logged(runs / "quantizer", "train/loss"),
        logged(runs / "quantizer", "train/reconstruction"),
        logged(runs / "quantizer", "train/commitment"),
        logged(runs / "quantizer", "train/separation"),
        strict=True,
    )
    for loss, reconstruction, commitment, separation in parts:
        assert separation > 0
        # The codebook loss has the value of the commitment.
        assert loss == pytest.approx(reconstruction + 1.25 * commitment + 10 * separation, rel=1e-4)


def test_a_fitted_quantizer_writes_a_catalog(runs: Path) -> None:
    run("fit")
    run("predict", f"--ckpt_path={checkpoint(runs)}")
    catalog = Catalog.load(runs / "shop")
    assert catalog.keys == embeddings().keys
    assert catalog.n_leaves == _N_ITEMS
    index = read_index(runs / "shop" / "shop.index.json")
    assert torch.equal(index.codes, catalog.codes)
    assert index.keys == catalog.keys
    nearest = RQVAEQuantizer.load(checkpoint(runs)).network.encode(embeddings().vectors)
    summary = json.loads((runs / "shop" / "quantization.json").read_text())
    assert summary["collisions_before"] == count_collisions(nearest)
    assert summary["collisions_after"] == 0
    assert summary["items_with_another_id"] == int((catalog.codes != nearest).any(1).sum())
    assert summary["codes_used"] == [
        len(set(slot.tolist())) / size for slot, size in zip(nearest.T, (6, 5, 8), strict=True)
    ]


def test_k_means_needs_no_fit(runs: Path) -> None:
    run("predict", f"{_K_MEANS} --trainer.callbacks.collisions=keep")
    expected = ResidualKMeans((6, 5, 8)).fit(embeddings().vectors).encode(embeddings().vectors)
    assert torch.equal(Catalog.load(runs / "shop").codes, expected.int())


def test_a_slot_of_its_own_tells_equal_items_apart(runs: Path) -> None:
    run("predict", f"{_K_MEANS} --trainer.callbacks.collisions=slot")
    catalog = Catalog.load(runs / "shop")
    assert (catalog.n_slots, catalog.n_leaves) == (4, _N_ITEMS)
    assert catalog.codebook_sizes[3] >= 3


def later_embeddings() -> ItemEmbeddings:
    """Half of the earlier items, and new ones that equal earlier ones."""
    earlier = embeddings()
    keys = [*earlier.keys[:45], *(f"new{item}" for item in range(45))]
    return ItemEmbeddings(keys, torch.cat([earlier.vectors[:45], earlier.vectors[:45]]), source="later")


def extend(runs: Path, monkeypatch: pytest.MonkeyPatch, arguments: str) -> None:
    """Write IDs of later items to the folder `more`."""
    later_embeddings().save(runs / "later.safetensors")
    monkeypatch.setenv("PADREC_TEST_EMBEDDINGS", str(runs / "later.safetensors"))
    more = f"--trainer.callbacks.folder={runs / 'more'} --trainer.callbacks.extends={runs / 'shop'}"
    run("predict", f"{more} {arguments}")


@pytest.mark.parametrize("collisions", ["reassign", "slot", "keep"])
def test_later_items_get_ids_by_the_same_codebooks(
    collisions: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = f"{_K_MEANS} --trainer.callbacks.collisions={collisions}"
    run("predict", how)
    extend(runs, monkeypatch, f"{how} --model.init_args.codebooks={runs / 'shop' / 'codebooks.safetensors'}")
    earlier, catalog = Catalog.load(runs / "shop"), Catalog.load(runs / "more")
    assert catalog.keys == (*earlier.keys, *(f"new{item}" for item in range(45)))
    assert torch.equal(catalog.codes[:_N_ITEMS], earlier.codes)
    assert count_collisions(catalog.codes) == (count_collisions(earlier.codes) + 45 if collisions == "keep" else 0)
    if collisions != "reassign":  # equal items, equal codes
        assert torch.equal(catalog.codes[_N_ITEMS:, :3], earlier.codes[:45, :3])
    summary = json.loads((runs / "more" / "quantization.json").read_text())
    assert (summary["items"], summary["earlier_items"]) == (45, _N_ITEMS)
    assert (runs / "more" / "codebooks.safetensors").read_bytes() == (
        runs / "shop" / "codebooks.safetensors"
    ).read_bytes()


def test_a_fitted_quantizer_gives_later_items_ids(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("fit")
    how = f"--trainer.callbacks.collisions=keep --ckpt_path={checkpoint(runs)}"
    run("predict", how)
    extend(runs, monkeypatch, how)
    assert torch.equal(Catalog.load(runs / "more").codes[:_N_ITEMS], Catalog.load(runs / "shop").codes)


def test_a_catalog_is_not_extended_by_other_codebooks(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("predict", _K_MEANS)
    with pytest.raises(SystemExit):
        extend(runs, monkeypatch, _K_MEANS)
    assert "expected a quantizer with the same: residual k-means takes them as" in capsys.readouterr().err
    books = f"--model.init_args.codebooks={runs / 'shop' / 'codebooks.safetensors'}"
    more = f"--trainer.callbacks.folder={runs / 'more'} --trainer.callbacks.extends={runs / 'shop'}"
    message = fails(capsys, "predict", f"{_K_MEANS} {books} {more} --trainer.callbacks.collisions=slot")
    assert "3 slots, expected 4 with collisions: slot" in message
    message = fails(capsys, "predict", f"{_K_MEANS} {books} --model.init_args.codebook_sizes=[6,5,9]")
    assert "codebooks.safetensors: [6, 5, 8] codes, expected codebook_sizes [6, 5, 9]" in message
    monkeypatch.setenv("PADREC_TEST_EMBEDDINGS", str(runs / "items.safetensors"))
    message = fails(capsys, "predict", f"{_K_MEANS} {books} {more}")
    assert "has all 90 items already, expected new ones" in message
    assert not (runs / "more").exists()


def test_k_means_can_be_validated(runs: Path) -> None:
    run("validate", _K_MEANS)
    vectors = embeddings().vectors
    quantizer = ResidualKMeans((6, 5, 8)).fit(vectors)
    codes = quantizer.encode(vectors)
    assert logged(runs / "quantizer", "val/collisions") == [count_collisions(codes)]
    error = (quantizer.decode(codes[:, :2]) - vectors).square().mean()
    assert logged(runs / "quantizer", "val/reconstruction/slot_1") == pytest.approx([error.item()])


def test_an_interrupted_fit_goes_on_as_if_nothing_had_happened(runs: Path) -> None:
    # Without the decay of the learning rate, which depends on the number of epochs.
    run("fit", "--trainer.max_epochs=2 --model.init_args.warmup_steps=100")
    run("fit", f"--trainer.max_epochs=4 --model.init_args.warmup_steps=100 --ckpt_path={checkpoint(runs)}")
    resumed = RQVAEQuantizer.load(checkpoint(runs)).state_dict()
    checkpoint(runs).unlink()
    run("fit", "--trainer.max_epochs=4 --model.init_args.warmup_steps=100")
    for name, value in RQVAEQuantizer.load(checkpoint(runs)).state_dict().items():
        assert torch.equal(resumed[name], value), name


def fails(capsys: pytest.CaptureFixture[str], stage: str, arguments: str) -> str:
    with pytest.raises(SystemExit) as end:
        run(stage, arguments)
    assert end.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_nothing_is_overwritten(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "shop").mkdir()
    (runs / "shop" / "mine").touch()
    message = fails(capsys, "predict", _K_MEANS)
    assert message.startswith(f"padrec: error: {runs / 'shop'}: there already")
    assert [path.name for path in (runs / "shop").iterdir()] == ["mine"]


def test_a_failure_between_two_files_leaves_no_folder(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("padrec.quantization.semantic_id_writer.write_codebooks", None)
        with pytest.raises(TypeError):
            run("predict", _K_MEANS)
    assert not list(runs.glob("shop*"))
    run("predict", _K_MEANS)
    assert {path.name for path in (runs / "shop").iterdir()} == {
        "codes.safetensors",
        "items.json",
        "shop.index.json",
        "codebooks.safetensors",
        "quantization.json",
        "padrec.sha256",
    }


def test_a_checkpoint_of_other_embeddings_is_refused(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit", "--trainer.max_epochs=1 --trainer.check_val_every_n_epoch=1")
    ItemEmbeddings(["x", "y"], torch.ones(2, 3)).save(runs / "others.safetensors")
    monkeypatch.setenv("PADREC_TEST_EMBEDDINGS", str(runs / "others.safetensors"))
    message = fails(capsys, "predict", f"--ckpt_path={checkpoint(runs)}")
    assert "the checkpoint reads embeddings of 7 values, the data have 3" in message
    assert not (runs / "shop").exists()


def test_part_of_the_items_makes_no_catalog(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails(capsys, "predict", f"{_K_MEANS} --trainer.limit_predict_batches=2")
    assert "semantic IDs of 50 items, expected all 90" in message
    assert not (runs / "shop").exists()


def test_too_few_semantic_ids_leave_nothing_behind(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails(capsys, "predict", "--model=padrec.ResidualKMeansQuantizer --model.init_args.codebook_sizes=[9,9]")
    assert "90 items share the first codes [], which have only 81 semantic IDs" in message
    assert not (runs / "shop").exists()


@pytest.mark.parametrize(
    "argument",
    [
        "commitment=-1",
        "separation=-1",
        "separation_margin=0",
        "initial_items=0",
        "learning_rate=0",
        "latent_size=0",
    ],
)
def test_arguments_out_of_range_are_refused(argument: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "expected" in fails(capsys, "fit", f"--model.init_args.{argument}")
