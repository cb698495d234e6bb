import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule

from padrec.catalog import InputError
from padrec.data import PromptBatch, SemanticIDDataModule
from padrec.data.training_rows import read_generated_lists
from padrec.decoding import AutoregressiveDecoder, Recommendations
from padrec.evaluation import SpeculativeEvaluator
from padrec.evaluation.recommendation_writer import RecommendationWriter, recommendation_rows
from tests.data.toy_data import ToyReader, toy_catalog
from tests.evaluation.list_stub import ListStub
from tests.tiny_training import quiet_trainer, tiny_data, tiny_recommender
from tests.two_processes import on_two_processes


def datamodule(**arguments: Any) -> SemanticIDDataModule:
    return SemanticIDDataModule(ToyReader(), list_length=3, eval_batch_size=4, **arguments)


def predict(
    path: Path,
    data: LightningDataModule | None = None,
    model: ListStub | None = None,
    titles: bool = False,
    **arguments: Any,
) -> None:
    arguments = {"devices": 1, "callbacks": RecommendationWriter(str(path), titles), **arguments}
    trainer = quiet_trainer(path.parent, **arguments)
    model = model or ListStub(toy_catalog().n_leaves, 3)
    trainer.predict(model, datamodule=data or datamodule(), return_predictions=False)


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_user_gets_a_line_with_their_own_keys(tmp_path: Path) -> None:
    data = datamodule()
    predict(tmp_path / "new" / "lists.jsonl", data)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["lists.jsonl"]
    rows = lines(tmp_path / "new" / "lists.jsonl")
    assert [row["user"] for row in rows] == list(data.user_keys)
    # User 1 has the items 1, 2, 3, 4; the last is for the test. 1 + 3 * (1 + 2 + 3) = 19, and leaf 19 % 7 = 5.
    assert rows[1] == {"user": "u1", "history": ["i1", "i2", "i3"], "items": ["i6", "i7", "i0"]}


def test_users_of_a_file_get_lines_in_its_order(tmp_path: Path) -> None:
    users = [{"user": f"new-{user}", "history": [f"i{user}", "i1"]} for user in range(5)]
    (tmp_path / "users.jsonl").write_text("".join(json.dumps(row) + "\n" for row in users))
    predict(tmp_path / "lists.jsonl", datamodule(predict_prompts=str(tmp_path / "users.jsonl"), max_users=2))
    rows = lines(tmp_path / "lists.jsonl")
    assert [{"user": row["user"], "history": row["history"]} for row in rows] == users
    assert {len(row["items"]) for row in rows} == {3}


def test_titles_can_be_written_too(tmp_path: Path) -> None:
    data = datamodule()
    data.catalog.texts = tuple(f"title of {key}" for key in data.catalog.keys)
    broken = ListStub(toy_catalog().n_leaves, 3, broken=True)
    predict(tmp_path / "lists.jsonl", data, broken, titles=True)
    for row in lines(tmp_path / "lists.jsonl"):
        assert row["titles"] == [None if item is None else f"title of {item}" for item in row["items"]]


def test_titles_that_there_are_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="items without titles, expected some, or titles: false"):
        predict(tmp_path / "lists.jsonl", titles=True)


def test_items_on_one_id_are_named_as_ties(tmp_path: Path) -> None:
    predict(tmp_path / "lists.jsonl")
    tied = [row for row in lines(tmp_path / "lists.jsonl") if "i4" in row["items"]]
    assert tied
    assert all(row["ties"] == {"i4": ["i5"]} for row in tied)
    assert not any("ties" in row for row in lines(tmp_path / "lists.jsonl") if row not in tied)


def test_what_is_no_item_is_null(tmp_path: Path) -> None:
    predict(tmp_path / "lists.jsonl", model=ListStub(toy_catalog().n_leaves, 3, broken=True))
    rows = lines(tmp_path / "lists.jsonl")
    assert all(len(row["items"]) == 3 and row["items"][1] is None for row in rows)


@pytest.mark.parametrize("arguments", [{}, {"predict_split": "train", "predict_cuts": 3}])
def test_the_datamodule_reads_the_lists_back(tmp_path: Path, arguments: dict[str, Any]) -> None:
    data = datamodule(**arguments)
    path = tmp_path / "lists.jsonl"
    predict(path, data)
    catalog = data.catalog
    histories, lists = read_generated_lists([str(path)], catalog, max_history=20, list_length=3)
    model = ListStub(catalog.n_leaves, 3)
    row = 0
    for batch in data.predict_dataloader():
        for history, leaves in zip(batch.history, model.predict_step(batch).leaves, strict=True):
            assert histories.row(row).tolist() == history[history >= 0].tolist()
            assert catalog.leaf_of_item[lists.row(row)].tolist() == leaves.tolist()
            row += 1
    assert row == len(lists)


def predict_share(rank: int, path: Path, data: SemanticIDDataModule) -> None:
    predict(path, data, devices=2, strategy="ddp")


def test_two_processes_write_the_file_of_one(tmp_path: Path) -> None:
    data = datamodule(predict_split="train", predict_cuts=2, max_users=23)
    predict(tmp_path / "alone.jsonl", data)
    on_two_processes(predict_share, tmp_path / "shared.jsonl", data)
    assert len(lines(tmp_path / "alone.jsonl")) % 2 == 1  # one row of the second process does not count
    assert (tmp_path / "shared.jsonl").read_text() == (tmp_path / "alone.jsonl").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone.jsonl", "shared.jsonl"]


def test_keys_of_any_script_survive_the_reading() -> None:
    data = datamodule()
    batch = next(iter(data.predict_dataloader()))
    keys = tuple(f"ü\u2028{key}" for key in data.user_keys)  # U+2028 ends a line for some readers
    row = next(recommendation_rows(batch, ListStub(7, 3).predict_step(batch), data.catalog, keys))
    (line,) = json.dumps(row).splitlines()
    assert json.loads(line)["user"] == "ü\u2028u0"


def test_rows_that_do_not_count_are_left_out_and_unknown_users_are_null() -> None:
    data = datamodule()
    batch: PromptBatch = data.prompts([["i0"], ["i1", "i2"]])
    lists = Recommendations(torch.tensor([[0], [1]]), torch.zeros(2, 1), torch.zeros(2, 1))
    batch.counted[0] = False
    assert list(recommendation_rows(batch, lists, data.catalog, data.user_keys)) == [
        {"user": None, "history": ["i1", "i2"], "items": ["i1"]}
    ]


def test_an_existing_file_is_refused_before_the_work_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "lists.jsonl"
    path.write_text("old")
    with pytest.raises(InputError, match=r"lists\.jsonl: there already"):
        predict(path, model=ListStub(7, 3, fails=True))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_prediction_into_the_same_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lists.jsonl"

    class Meanwhile(ListStub):
        def on_predict_start(self) -> None:
            with pytest.raises(InputError, match="another process is writing it, expected one at a time"):
                predict(path)

    predict(path, model=Meanwhile(toy_catalog().n_leaves, 3))
    predict(tmp_path / "alone.jsonl")
    assert path.read_bytes() == (tmp_path / "alone.jsonl").read_bytes()


def test_what_a_killed_prediction_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "lists.jsonl.partial").mkdir()
    (tmp_path / "lists.jsonl.partial" / "lines-of-process-0").write_text("{")
    predict(tmp_path / "lists.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["lists.jsonl"]


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        predict(tmp_path / "file" / "lists.jsonl")


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        predict(tmp_path / "lists.jsonl", model=ListStub(7, 3, fails=True))
    assert list(tmp_path.iterdir()) == []


def test_data_of_another_kind_are_refused(tmp_path: Path) -> None:
    class OtherData(LightningDataModule):
        def predict_dataloader(self) -> list[int]:
            return [0]

    with pytest.raises(InputError, match="expected a SemanticIDDataModule"):
        predict(tmp_path / "lists.jsonl", OtherData())


@pytest.mark.parametrize("kind", ["target", "evaluator"])
def test_items_of_the_history_are_not_recommended_where_the_model_excludes_them(kind: str, tmp_path: Path) -> None:
    data = tiny_data(max_users=None)
    target = tiny_recommender(data, exclude="history", list_length=12)
    model: LightningModule = target
    if kind == "evaluator":
        target.save_pretrained(tmp_path / "target")
        arms = {"autoregressive": AutoregressiveDecoder()}
        model = SpeculativeEvaluator(
            str(tmp_path / "target"), arms, data.vocabulary, data.catalog, list_length=12, exclude="history"
        )
    trainer = quiet_trainer(tmp_path, callbacks=[RecommendationWriter(str(tmp_path / "lists.jsonl"))])
    trainer.predict(model, datamodule=data, return_predictions=False)
    rows = lines(tmp_path / "lists.jsonl")
    leaf = {key: int(data.catalog.leaf_of_item[item]) for item, key in enumerate(data.catalog.keys)}
    shared = 0
    for row in rows:
        named = [*row["items"], *(key for keys in row.get("ties", {}).values() for key in keys)]
        assert not set(named) & set(row["history"])
        assert len({leaf[key] for key in row["items"]}) == 12
        shared += bool({leaf[key] for key in row["items"]} & {leaf[key] for key in row["history"]})
    assert len(rows) == 31
    assert shared, "no semantic ID is that of an item of the history and of another one"
