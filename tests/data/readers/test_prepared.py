import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from padrec.catalog import Catalog, InputError
from padrec.data import Preparation, PreparedReader, SemanticIDDataModule, Split
from padrec.data.logs.source import ItemText
from padrec.data.preparation.prepared_folder import PreparedFolder
from padrec.data.readers.semantic_id_index import write_index
from tests.damage import with_a_flipped_bit
from tests.data.preparation.made_up_log import MadeUpLog, random_log
from tests.data.preparation.reference_preparation import reference_sequences

N_ITEMS = 25


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    log = MadeUpLog(random_log(n_items=N_ITEMS), folder / "log", [ItemText("i3", "A lamp")])
    Preparation(log, str(folder / "shop")).run()
    return folder / "shop"


@pytest.fixture
def copy(prepared: Path, tmp_path: Path) -> Path:
    """A copy without digests, in which other mistakes can be made."""
    for path in prepared.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "padrec.sha256").unlink()
    return tmp_path


@pytest.mark.parametrize("name", ["interactions.parquet", "users.parquet", "items.parquet", "prepared.json"])
def test_a_flipped_bit_is_noticed(name: str, prepared: Path, copy: Path) -> None:
    (copy / "padrec.sha256").write_bytes((prepared / "padrec.sha256").read_bytes())
    (copy / name).write_bytes(with_a_flipped_bit((copy / name).read_bytes(), 0.5))
    with pytest.raises(InputError, match=f"{name}: not what was written"):
        PreparedReader(str(copy), None).read()


def write_catalog(folder: Path, n_items: int = N_ITEMS) -> str:
    """Semantic IDs in another order than that of the log, and an item that nobody has."""
    folder.mkdir(exist_ok=True)
    index = {f"i{item}": [f"<a_{item % 5}>", f"<b_{item // 5}>"] for item in reversed(range(n_items))}
    (folder / "index.json").write_text(json.dumps({"new": ["<a_0>", "<b_7>"], **index}))
    return str(folder)


def test_sequences_and_split_are_those_that_were_prepared(prepared: Path, tmp_path: Path) -> None:
    dataset = PreparedReader(str(prepared), write_catalog(tmp_path)).read()
    split, catalog = dataset.interactions, dataset.catalog
    assert isinstance(split, Split)
    expected = reference_sequences(random_log(n_items=N_ITEMS), 1, True, 5, 5)
    assert dataset.name == "shop"
    assert set(split.user_keys) == set(expected)
    for row, user in enumerate(split.user_keys):
        items = [item for item, _ in expected[user]]
        found = [[catalog.keys[item] for item in part.row(row)] for part in (split.train, split.validation, split.test)]
        assert found == [items[:-2], items[-2:-1], items[-1:]]


def test_titles_are_those_of_the_log(prepared: Path, tmp_path: Path) -> None:
    catalog = PreparedReader(str(prepared), write_catalog(tmp_path)).read().catalog
    assert catalog.texts is not None
    assert catalog.texts[catalog.index("i3")] == "A lamp"
    assert catalog.texts[catalog.index("i4")] == catalog.texts[catalog.index("new")] == ""


def test_items_that_came_later_have_the_titles_of_their_catalog(prepared: Path, tmp_path: Path) -> None:
    keys = [f"i{item}" for item in range(N_ITEMS)]
    codes = torch.tensor([[item % 5, item // 5] for item in range(N_ITEMS + 1)])
    catalog = Catalog(codes, [*keys, "new"], [*("old",) * N_ITEMS, "A vase"])
    catalog.save(tmp_path / "catalog")
    write_index(catalog, tmp_path / "catalog" / "index.json")
    found = PreparedReader(str(prepared), str(tmp_path / "catalog")).read().catalog
    assert found.texts is not None
    assert (found.texts[found.index("i3")], found.texts[found.index("new")]) == ("A lamp", "A vase")


def test_before_there_are_ids_every_item_has_a_code_of_its_own(prepared: Path, tmp_path: Path) -> None:
    found = PreparedReader(str(prepared), None).read()
    with_ids = PreparedReader(str(prepared), write_catalog(tmp_path)).read()
    assert found.catalog.codes.tolist() == [[item] for item in range(N_ITEMS)]
    assert isinstance(found.interactions, Split)
    assert isinstance(with_ids.interactions, Split)
    for row in range(len(found.interactions.user_keys)):
        sequences = [
            [dataset.catalog.keys[item] for item in dataset.interactions.train.row(row)]  # type: ignore[union-attr]
            for dataset in (found, with_ids)
        ]
        assert sequences[0] == sequences[1]


def test_a_datamodule_trains_and_tests_with_it(prepared: Path, tmp_path: Path) -> None:
    data = SemanticIDDataModule(PreparedReader(str(prepared), write_catalog(tmp_path)), list_length=3)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.tokens.dtype == torch.long
    prompts = next(iter(data.test_dataloader()))
    assert bool((prompts.relevant_items[:, 0] >= 0).all())


def test_an_item_without_semantic_id_is_refused(prepared: Path, tmp_path: Path) -> None:
    reader = PreparedReader(str(prepared), write_catalog(tmp_path, n_items=24))
    with pytest.raises(InputError, match=r"items\.parquet: item 'i24' is not among the 25 .*, expected a semantic ID"):
        reader.read()


def test_missing_folders_and_files_are_refused(copy: Path, tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "catalog")
    with pytest.raises(InputError, match=r"absent: no such folder, expected a folder written by `padrec prepare`"):
        PreparedReader(str(tmp_path / "absent"), catalog).read()
    (copy / "users.parquet").unlink()
    with pytest.raises(InputError, match=r"users\.parquet: no such file"):
        PreparedReader(str(copy), catalog).read()
    (copy / "users.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"users\.parquet: cannot be read .*, expected it as it was prepared"):
        PreparedReader(str(copy), catalog).read()


def _with(table: pa.Table, name: str, values: Any) -> pa.Table:  # noqa: ANN401
    position = table.column_names.index(name)
    return table.set_column(position, name, pa.array(values, table.schema.field(name).type))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.slice(1), r"rows of user, item, split, expected \d+ of user, item, split"),
        (lambda table: table.drop_columns("split"), "cannot be read"),
        (lambda table: _with(table, "item", [99] * len(table)), r"item rows 99 … 99, expected 0 … 24"),
        (lambda table: _with(table, "user", [-1] * len(table)), "user rows -1 … -1, expected 0"),
        (lambda table: table.take(list(reversed(range(len(table))))), "users are not in ascending order"),
        (
            lambda table: table.set_column(3, "split", pa.array(["trial"] * len(table))),
            "rows with another split, expected one of train, validation, test",
        ),
    ],
)
def test_files_that_do_not_belong_together_are_refused(change: Any, message: str, copy: Path) -> None:  # noqa: ANN401
    path = PreparedFolder(copy).interactions
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(InputError, match=rf"interactions\.parquet: .*({message})"):
        PreparedReader(str(copy), write_catalog(copy / "catalog")).read()
