import json
import logging
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from padrec.catalog import Catalog, InputError
from padrec.cli import main
from padrec.data import SemanticIDDataModule
from padrec.data.readers.lcrec import LCRecReader
from padrec.quantization import TargetEmbeddings
from padrec.targets import TargetRecommender
from tests.data.toy_data import write_lcrec
from tests.tiny_training import tiny_backbone, tiny_recommender

_CONF = Path(__file__).parents[1] / "conf"
_N_ITEMS = 12
_UNSEEN = "11"


def write_items(folder: Path, n_items: int = _N_ITEMS) -> LCRecReader:
    """Users who go through the items in circles; all but the last item stand in training parts."""
    folder.mkdir()
    # In an order that is not that of the codes.
    index = {str(item): [f"<a_{(7 * item) % n_items}>"] for item in range(n_items)}
    rows = {f"u{user}": [str((user + step) % (_N_ITEMS - 1)) for step in range(6)] for user in range(_N_ITEMS)}
    rows["u0"][-1] = _UNSEEN
    write_lcrec(folder, index, rows)
    return LCRecReader(str(folder))


def item_target(reader: LCRecReader, tied: bool) -> TargetRecommender:
    data = SemanticIDDataModule(reader, list_length=3, separator=False)
    return tiny_recommender(data, backbone=tiny_backbone(tie_word_embeddings=tied, initializer_range=0.3))


def save_target(reader: LCRecReader, folder: Path, tied: bool = True) -> str:
    item_target(reader, tied).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("tied", [True, False])
def test_an_item_has_the_rows_of_its_code(tied: bool, tmp_path: Path) -> None:
    reader = write_items(tmp_path / "items")
    found = TargetEmbeddings(reader, save_target(reader, tmp_path / "target", tied)).embed()
    target = item_target(reader, tied)
    embeddings: Any = target.backbone.get_input_embeddings()
    head: Any = target.backbone.get_output_embeddings()
    assert found.keys == reader.read().catalog.keys
    for key, vector in zip(found.keys, found.vectors, strict=True):
        token = target.vocabulary.first_code + (7 * int(key)) % _N_ITEMS
        rows = [embeddings.weight[token]] if tied else [embeddings.weight[token], head.weight[token]]
        expected = torch.cat([row / row.norm() for row in rows])
        torch.testing.assert_close(vector, expected if key != _UNSEEN else torch.zeros_like(expected))


def test_items_without_training_interactions_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    reader = write_items(tmp_path / "items")
    target = save_target(reader, tmp_path / "target")
    with caplog.at_level(logging.WARNING):
        TargetEmbeddings(reader, target).embed()
    assert f"1 of {_N_ITEMS} items get vectors of zeros" in caplog.text


def test_a_fit_on_items_gives_semantic_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADREC_TEST_RUNS", str(tmp_path))
    write_items(tmp_path / "items")
    folder = f"reader=padrec.LCRecReader --data.init_args.reader.init_args.folder={tmp_path / 'items'}"
    arguments = f"--data.init_args.{folder} --data.init_args.separator=false --data.init_args.list_length=3"
    main(["fit", "--config", str(_CONF / "target.yaml"), *shlex.split(arguments)])
    embeddings = {
        "class_path": "padrec.TargetEmbeddings",
        "init_args": {
            "reader": {"class_path": "padrec.LCRecReader", "init_args": {"folder": str(tmp_path / "items")}},
            "target": str(tmp_path / "target" / "checkpoints" / "last.ckpt"),
        },
    }
    overlay = tmp_path / "embeddings.yaml"
    overlay.write_text(json.dumps({"data": {"init_args": {"embeddings": embeddings}}}))
    quantizer = "--model=padrec.ResidualKMeansQuantizer --model.init_args.codebook_sizes=[4,4]"
    monkeypatch.setenv("PADREC_TEST_EMBEDDINGS", "replaced")
    main(["predict", f"--config={_CONF / 'quantizer.yaml'}", f"--config={overlay}", *shlex.split(quantizer)])
    catalog = Catalog.load(tmp_path / "shop")
    assert (catalog.n_items, catalog.n_leaves, catalog.n_slots) == (_N_ITEMS, _N_ITEMS, 2)


def test_several_codes_for_an_item_are_refused(tmp_path: Path) -> None:
    write_lcrec(tmp_path, {"0": ["<a_0>", "<b_0>"], "1": ["<a_0>", "<b_1>"]}, {"u": ["0", "1", "0"]})
    with pytest.raises(InputError, match="2 codes for an item, expected one"):
        TargetEmbeddings(LCRecReader(str(tmp_path)), "absent").embed()


def test_a_target_of_another_catalog_is_refused(tmp_path: Path) -> None:
    target = save_target(write_items(tmp_path / "items"), tmp_path / "target")
    more = write_items(tmp_path / "more", _N_ITEMS + 1)
    with pytest.raises(InputError, match=r"trained with \[12\] codes, expected a target of .* with \[13\]"):
        TargetEmbeddings(more, target).embed()


def test_no_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.ckpt: no such file"):
        TargetEmbeddings(write_items(tmp_path / "items"), str(tmp_path / "absent.ckpt")).embed()
