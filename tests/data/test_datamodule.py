import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LightningCLI

from padrec.catalog import InputError, SemanticIDVocabulary
from padrec.data import (
    GeneratedLists,
    ItemSequences,
    LCRecReader,
    LoggedSequences,
    PromptBatch,
    PromptTemplate,
    SemanticIDDataModule,
    Split,
    TrainingRows,
)
from tests.data.toy_data import CODES, INDEX, Recorder, ToyReader, write_lcrec
from tests.tiny_language_model import TEXT, save_tiny_tokenizer
from tests.tiny_training import quiet_trainer
from tests.two_processes import on_two_processes


def datamodule(**arguments: Any) -> SemanticIDDataModule:
    reader = arguments.pop("reader", ToyReader())
    return SemanticIDDataModule(reader, **{"list_length": 2, "max_history": 3, "batch_size": 8, **arguments})


def mixed_rows(lists: Path) -> list[TrainingRows]:
    return [LoggedSequences(), GeneratedLists([str(lists)])]


def histories(batches: list[PromptBatch]) -> dict[int, list[int]]:
    """The prompt of every counted row."""
    found = {}
    for batch in batches:
        for user, history, counted in zip(batch.users.tolist(), batch.history.tolist(), batch.counted, strict=True):
            if counted:
                found[user] = [item for item in history if item >= 0]
    return found


def test_vocabulary_and_catalog_are_there_after_construction() -> None:
    data = datamodule(shared_codes=True, separator=False)
    expected = SemanticIDVocabulary((3, 3), separator=False, shared_codes=True)
    assert data.vocabulary.fingerprint == expected.fingerprint
    assert data.catalog.n_items == len(CODES)
    assert data.dataset_name == "toy"
    assert data.user_keys[:2] == ("u0", "u1")
    assert data.max_prompt_tokens == 1 + 3 * 2
    assert data.max_sequence_tokens == 1 + 5 * 2


def test_every_training_item_is_supervised_once_an_epoch() -> None:
    data = datamodule()
    batches = list(data.train_dataloader())
    supervised = sum(int(batch.supervised.sum()) for batch in batches)
    assert supervised == data.vocabulary.item_length * len(data.split.train.items)
    assert max(batch.tokens.shape[1] for batch in batches) <= data.max_sequence_tokens


def test_prompts_hold_what_each_stage_may_see() -> None:
    rows = ToyReader().rows
    data = datamodule(eval_batch_size=7)
    validation, test = list(data.val_dataloader()), list(data.test_dataloader())
    assert histories(validation) == {user: list(row[:-2][-3:]) for user, row in enumerate(rows)}
    assert histories(test) == {user: list(row[:-1][-3:]) for user, row in enumerate(rows)}
    truth = torch.cat([batch.relevant_items for batch in test]).flatten().tolist()
    assert truth == [row[-1] for row in rows]
    assert max(batch.tokens.shape[1] for batch in test) <= data.max_prompt_tokens


def test_a_given_split_is_kept() -> None:
    train = ItemSequences.from_lists([[0, 1], [2]])
    validation = ItemSequences.from_lists([[3, 4], []])
    test = ItemSequences.from_lists([[5], [6, 7]])
    data = datamodule(reader=ToyReader(split=Split(("a", "b"), train, validation, test)))
    assert histories(list(data.val_dataloader())) == {0: [0, 1]}
    assert histories(list(data.test_dataloader())) == {0: [1, 3, 4], 1: [2]}
    assert next(iter(data.test_dataloader())).relevant_items.tolist() == [[5, -1], [6, 7]]


def test_max_users_takes_a_seeded_sample() -> None:
    samples = [list(histories(list(datamodule(max_users=5, seed=seed).test_dataloader()))) for seed in (0, 0, 1)]
    assert all(len(sample) == 5 and sample == sorted(sample) for sample in samples)
    assert samples[0] == samples[1] != samples[2]
    assert len(histories(list(datamodule(max_users=5000).test_dataloader()))) == 40


def test_training_sequences_can_be_predicted_from_random_cuts() -> None:
    data = datamodule(predict_split="train", predict_cuts=2, max_users=10)
    batches = list(data.predict_dataloader())
    users = torch.cat([batch.users for batch in batches]).tolist()
    rows = ToyReader().rows
    assert Counter(users) == {user: min(2, len(rows[user]) - 2) for user in set(users)}
    assert len(set(users)) == 10
    repeated = list(data.predict_dataloader())
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(batches, repeated, strict=True))


def test_generated_lists_are_mixed_in(tmp_path: Path) -> None:
    path = tmp_path / "lists.jsonl"
    path.write_text(json.dumps({"user": "u0", "history": ["i7"] * 9, "items": ["i7", "i7"]}) + "\n")
    logged, mixed = (list(datamodule(training_rows=rows).train_dataloader()) for rows in (None, mixed_rows(path)))
    rows = [
        row for batch in mixed for row in zip(batch.lengths.tolist(), batch.supervised.sum(1).tolist(), strict=True)
    ]
    assert len(rows) == sum(len(batch.tokens) for batch in logged) + 1
    assert (1 + 5 * 3, 2 * 3) in rows


def test_generated_lists_can_be_all_that_is_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "lists.jsonl"
    path.write_text(json.dumps({"user": "u0", "history": ["i7"] * 2, "items": ["i1", "i2"]}) + "\n")
    (batch,) = datamodule(training_rows=[GeneratedLists([str(path)])]).train_dataloader()
    assert batch.lengths.tolist() == [1 + 4 * 3]
    assert batch.supervised.sum(1).tolist() == [2 * 3]


def test_lists_are_marked_in_training_and_in_prompts(tmp_path: Path) -> None:
    path = tmp_path / "lists.jsonl"
    path.write_text(json.dumps({"user": "u0", "history": ["i7"] * 3, "items": ["i1", "i2"]}) + "\n")
    data = datamodule(training_rows=mixed_rows(path), list_marker=True)
    eos = data.vocabulary.eos_token
    batches = list(data.train_dataloader())
    assert sum(int((batch.tokens == eos).sum()) for batch in batches) == 1
    assert max(batch.tokens.shape[1] for batch in batches) <= data.max_sequence_tokens == 1 + 5 * 3 + 1
    for prompts in (*data.test_dataloader(), data.prompts([["i1"], ["i1", "i2"]])):
        assert prompts.tokens.gather(1, prompts.lengths[:, None] - 1).eq(eos).all()
        assert prompts.tokens.shape[1] <= data.max_prompt_tokens


@pytest.mark.parametrize("list_marker", [True, False])
def test_text_and_markers_count_among_the_most_tokens(list_marker: bool, tmp_path: Path) -> None:
    save_tiny_tokenizer(tmp_path)
    path = tmp_path / "lists.jsonl"
    path.write_text(json.dumps({"user": "u0", "history": ["i7"] * 3, "items": ["i1", "i2"]}) + "\n")
    for text in ("", ", and "):
        template = PromptTemplate(str(tmp_path), TEXT, "{item}" + text)
        data = datamodule(prompt=template, training_rows=mixed_rows(path), list_marker=list_marker)
        around = 1 + len(template.opening) + len(template.closing)
        assert max(batch.tokens.shape[1] for batch in data.test_dataloader()) == data.max_prompt_tokens
        with_text = data.max_prompt_tokens - around - int(list_marker)
        assert with_text == 3 * 3 if text == "" else with_text > 3 * 3
        assert max(batch.tokens.shape[1] for batch in data.train_dataloader()) == data.max_sequence_tokens
        assert data.max_sequence_tokens >= data.max_prompt_tokens + 2 * 3


def test_predicted_histories_can_be_written_back_as_item_keys(tmp_path: Path) -> None:
    data = datamodule(predict_split="train")
    lines = []
    for batch in data.predict_dataloader():
        for user, history in zip(batch.users.tolist(), batch.history.tolist(), strict=True):
            keys = [data.catalog.keys[item] for item in history if item >= 0]
            lines.append(json.dumps({"user": data.user_keys[user], "history": keys, "items": ["i0", "i3"]}))
    path = tmp_path / "lists.jsonl"
    path.write_text("\n".join(lines))
    rows = sum(len(batch.tokens) for batch in datamodule(training_rows=mixed_rows(path)).train_dataloader())
    assert rows == sum(len(batch.tokens) for batch in data.train_dataloader()) + 40


def test_prompts_of_new_users() -> None:
    batch = datamodule().prompts([["i1", "i2", "i3", "i4"], ["i7"]])
    assert batch.history.tolist() == [[2, 3, 4], [7, -1, -1]]
    assert batch.users.tolist() == [-1, -1]
    assert batch.relevant.shape == (2, 0)
    assert batch.counted.all()
    for wrong, message in (
        ([], "no histories"),
        ([["i1"], []], "history 1 is empty"),
        ([["i9"]], "history 0: item 'i9' is not among the 8 items"),
    ):
        with pytest.raises(InputError, match=message):
            datamodule().prompts(wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"list_length": 8}, "list_length is 8, expected at most the 7 different semantic IDs of catalog"),
        ({"list_length": 0}, "list_length is 0, expected at least 1"),
        ({"max_history": 0}, "max_history is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"num_workers": -1}, "num_workers is -1, expected at least 0"),
        ({"max_users": 0}, "max_users is 0"),
        ({"predict_split": "val"}, "predict_split is 'val', expected 'test' or 'train'"),
        ({"unknown_items": "keep"}, "unknown_items is 'keep', expected 'error' or 'drop'"),
        (
            {"predict_split": "train", "predict_prompts": "users.jsonl"},
            "predict_prompts is 'users.jsonl' and predict_split 'train', expected one of them",
        ),
        ({"training_rows": []}, "training_rows is empty, expected a source of rows"),
        ({"predict_prompts": "absent.jsonl"}, r"absent\.jsonl: no such file"),
        ({"codebook_sizes": [3]}, "codebook_sizes has 1 slots, expected 2 as in catalog"),
        ({"codebook_sizes": [3, 2]}, "catalog: item 'i2' has code 2 in slot 1, expected 0 … 1"),
        ({"reader": ToyReader([[1, 2]])}, r"1 user \('u0'\) with fewer than 3 items"),
    ],
)
def test_wrong_input_is_refused_at_construction(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        datamodule(**arguments)


def test_wrong_files_are_refused_before_a_fit(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: no such file"):
        datamodule(training_rows=[GeneratedLists([str(tmp_path / "none.jsonl")])]).setup("fit")
    write_lcrec(tmp_path, INDEX, {"u": [1, 2, 8]})
    with pytest.raises(InputError, match="item '8' is not among"):
        datamodule(reader=LCRecReader(str(tmp_path)))
    nothing = ItemSequences.from_lists([[]])
    empty = datamodule(reader=ToyReader(split=Split(("a",), nothing, nothing, ItemSequences.from_lists([[1]]))))
    with pytest.raises(InputError, match="no user has items to train on"):
        empty.setup("fit")
    with pytest.raises(InputError, match="no user has test items and a history"):
        empty.test_dataloader()


def test_a_larger_codebook_can_be_declared() -> None:
    assert datamodule(codebook_sizes=[4, 8]).vocabulary.codebook_sizes == (4, 8)


def test_batches_move_to_a_device_as_a_whole() -> None:
    batch = next(iter(datamodule().test_dataloader())).to("meta")
    assert isinstance(batch, PromptBatch)
    assert all(tensor.is_meta for tensor in vars(batch).values())


def test_worker_processes_give_the_same_prompts() -> None:
    alone = list(datamodule(eval_batch_size=9).test_dataloader())
    shared = list(datamodule(eval_batch_size=9, num_workers=1).test_dataloader())
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(alone, shared, strict=True))


def test_checkpoints_load_as_weights_only(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, max_epochs=1, limit_val_batches=0)
    trainer.fit(Recorder(), datamodule=datamodule())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert "datamodule_hyper_parameters" not in torch.load(tmp_path / "a.ckpt", weights_only=True)


def record(recorder: Recorder, folder: Path, **arguments: Any) -> None:
    sizes = {"batch_size": 7, "eval_batch_size": 4, "max_users": 13}  # 64 rows: the last batch has one
    trainer = quiet_trainer(folder, max_epochs=2, limit_val_batches=0, **arguments)
    trainer.fit(recorder, datamodule=datamodule(**sizes))
    trainer.test(recorder, datamodule=datamodule(**sizes), verbose=False)


def record_share(rank: int, folder: Path) -> None:
    record(Recorder(str(folder)), folder, devices=2, strategy="ddp")


def test_two_processes_see_the_batches_and_users_of_one(tmp_path: Path) -> None:
    alone = Recorder()
    record(alone, tmp_path)
    on_two_processes(record_share, tmp_path)
    found = [json.loads((tmp_path / f"train-{rank}.json").read_text()) for rank in range(2)]
    assert len(found[0]) == len(found[1]) == len(alone.batches) == 20
    for step, batch in enumerate(alone.batches):
        rows = [row for process in found for row in process[step] if "True" in row]
        assert sorted(rows) == sorted(batch)
    users = [json.loads((tmp_path / f"test-{rank}.json").read_text()) for rank in range(2)]
    assert sorted(users[0] + users[1]) == sorted(alone.users)
    assert len(alone.users) == 13


@pytest.mark.parametrize("class_path", ["padrec.data.SyntheticReader", "SyntheticReader"])
def test_a_config_names_the_reader_by_its_class(tmp_path: Path, class_path: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        f"""
data:
  class_path: padrec.data.SemanticIDDataModule
  init_args:
    reader:
      class_path: {class_path}
      init_args: {{n_users: 30, n_items: 60, codebook_sizes: [4, 8, 8]}}
    list_length: 5
    training_rows: [padrec.LoggedSequences]
    codebook_sizes: [4, 8, 9]
"""
    )
    cli = LightningCLI(
        LightningModule,
        SemanticIDDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        run=False,
        save_config_callback=None,
        args=["--config", str(config), "--model", "tests.data.toy_data.Recorder"],
    )
    assert isinstance(cli.datamodule, SemanticIDDataModule)
    assert cli.datamodule.catalog.n_items == 60
    assert cli.datamodule.vocabulary.codebook_sizes == (4, 8, 9)
