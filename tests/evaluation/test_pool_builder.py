"""`padrec pool`: lists become a pool, without those of tested users, in groups of users who behave alike."""

import json
import shlex
from pathlib import Path

import pytest
import torch

from padrec.catalog import InputError
from padrec.cli import main
from padrec.data import SemanticIDDataModule
from padrec.decoding import (
    AutoregressiveDecoder,
    DynamicTree,
    SpeculativeDecoder,
)
from padrec.drafts.retrieval import PromptGroups, RetrievalDraft, TokenPool
from padrec.evaluation import PoolBuilder, SpeculativeEvaluator
from padrec.quantization import EmbeddingSource, ItemEmbeddings
from tests.tiny_training import quiet_trainer, tiny_data, tiny_recommender

_TESTED = 7  # users that `tiny_data` tests with


class TwoKinds(EmbeddingSource):
    """Items of the first code 0 point one way, all others another."""

    def __init__(self, data: SemanticIDDataModule) -> None:
        self._data = data

    def embed(self) -> ItemEmbeddings:
        catalog = self._data.catalog
        first = (catalog.codes[:, 0] == 0).float()
        return ItemEmbeddings(list(catalog.keys)[::-1], torch.stack([first, 1 - first], 1).flip(0))


@pytest.fixture(scope="module")
def data() -> SemanticIDDataModule:
    return tiny_data()


@pytest.fixture
def file(data: SemanticIDDataModule, tmp_path: Path) -> Path:
    """A list of three items for every user, after a history of items of one kind."""
    first, keys = data.catalog.codes[:, 0], data.catalog.keys
    kinds = [
        [keys[item] for item in (first == 0).nonzero()[:, 0]],
        [keys[item] for item in (first != 0).nonzero()[:, 0]],
    ]
    rows = [
        {
            "user": user,
            "history": kinds[place % 2][:2],
            "items": [keys[(place + step) % len(keys)] for step in range(3)],
        }
        for place, user in enumerate(data.user_keys)
    ]
    path = tmp_path / "lists.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_lists_of_tested_users_are_left_out_unless_wanted(
    data: SemanticIDDataModule, file: Path, tmp_path: Path
) -> None:
    pool = PoolBuilder(data, [str(file)], str(tmp_path / "pool.safetensors")).run()
    n_users = len(data.user_keys)
    assert pool.settings == {
        "vocabulary": data.vocabulary.fingerprint,
        "own_answers": False,
        "refused": _TESTED,
    }
    assert int(pool.texts.counts.sum()) == n_users - _TESTED
    every = PoolBuilder(data, [str(file)], str(tmp_path / "every.safetensors"), own_answers=True).run()
    assert int(every.texts.counts.sum()) == n_users
    assert every.settings["own_answers"] is True
    # A text is the prompt's last token and the list, without a separator at its end.
    tokens = every.texts.tokens[: int(every.texts.lengths[0])].tolist()
    assert len(tokens) == 1 + data.vocabulary.list_tokens(3) + 1
    assert data.vocabulary.parse_lists(torch.tensor([tokens[1:-1]]), 3).min() >= 0


def test_users_are_grouped_by_what_is_in_their_histories(
    data: SemanticIDDataModule, file: Path, tmp_path: Path
) -> None:
    path = tmp_path / "pool.safetensors"
    builder = PoolBuilder(data, [str(file)], str(path), n_groups=2, embeddings=TwoKinds(data), own_answers=True)
    pool = builder.run()
    assert pool.texts.groups.unique().tolist() == [0, 1]
    groups = PromptGroups.of_pool(TokenPool.load(path), torch.device("cpu"))
    assert groups is not None
    kinds = [
        [key for key, code in zip(data.catalog.keys, data.catalog.codes[:, 0], strict=True) if (code == 0) == kind]
        for kind in (True, False)
    ]
    prompts = data.prompts([kinds[0][:3], kinds[1][:1], kinds[0][1:2], kinds[1][:3]])
    first, second, third, fourth = groups.of(prompts.tokens, prompts.lengths).tolist()
    assert first == third != second == fourth


def test_groups_may_be_cut_to_a_size(data: SemanticIDDataModule, file: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "pool.safetensors")
    builder = PoolBuilder(data, [str(file)], path, 2, TwoKinds(data), lists_per_group=3, own_answers=True)
    assert torch.bincount(builder.run().texts.groups).tolist() == [3, 3]


def test_what_cannot_be_built_is_refused(data: SemanticIDDataModule, file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="n_groups 2 without embeddings"):
        PoolBuilder(data, [str(file)], "pool", n_groups=2)
    own = tmp_path / "own.jsonl"
    tested = {data.user_keys[user] for batch in data.test_dataloader() for user in batch.users.tolist()}
    lines = file.read_text().splitlines(keepends=True)
    own.write_text("".join(line for line in lines if json.loads(line)["user"] in tested))
    with pytest.raises(InputError, match="only lists of users that are tested"):
        PoolBuilder(data, [str(own)], str(tmp_path / "pool")).run()


def test_the_command_writes_a_pool_that_an_evaluation_draws_on(
    data: SemanticIDDataModule, file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reader = {"n_users": 31, "n_items": 30, "codebook_sizes": [5, 6, 7], "mean_length": 7, "duplicates": 0.1}
    sizes = {"list_length": 3, "max_history": 3, "batch_size": 8, "eval_batch_size": 4, "max_users": 7}
    config = {
        "data": {
            "class_path": "padrec.SemanticIDDataModule",
            "init_args": {"reader": {"class_path": "padrec.SyntheticReader", "init_args": reader}, **sizes},
        },
        "lists": [str(file)],
        "path": str(tmp_path / "pool.safetensors"),
    }
    (tmp_path / "pool.yaml").write_text(json.dumps(config))
    main(["pool", *shlex.split(f"--config {tmp_path / 'pool.yaml'} --lists_per_group 20")])
    assert "left out: 7 lists of tested users" in capfd.readouterr().out
    draft = RetrievalDraft(str(tmp_path / "pool.safetensors"))
    arms = {
        "autoregressive": AutoregressiveDecoder(),
        "retrieval-exact": SpeculativeDecoder(draft, DynamicTree(4, 3, 12)),
    }
    evaluator = SpeculativeEvaluator(tiny_recommender(data), arms, data.vocabulary, data.catalog, data.list_length)
    quiet_trainer(tmp_path / "run", precision="64-true").test(evaluator, datamodule=data, verbose=False)
    found = json.loads((tmp_path / "run" / "report.json").read_text())["arms"]
    assert found["autoregressive"]["lossless"] is True
    assert found["retrieval-exact"]["pool"]["own_answers"] is False
    assert found["retrieval-exact"]["pool"]["look_up_ms"] > 0
    assert found["retrieval-exact"]["identical_lists"] == 1.0
    assert "none of tested users" in (tmp_path / "run" / "report.md").read_text()
