import ast
import csv
import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest

from padrec.catalog import InputError
from padrec.data import MiniOneRecReader, SemanticIDDataModule, Split
from tests.data.toy_data import CODES, INDEX

Row = tuple[str, list[int], int]
# By user: a has 0 1 | 2 3 | 4, b has 5 | 6 | –, c has 7 | – | 0 1.
ROWS: dict[str, list[Row]] = {
    "train": [("a", [0], 1)],
    "valid": [("a", [0, 1], 2), ("b", [5], 6), ("a", [0, 1, 2], 3)],
    "test": [("c", [7], 0), ("a", [0, 1, 2, 3], 4), ("c", [7, 0], 1)],
}


def sid(item: int) -> str:
    return "".join(INDEX[str(item)])


def write_part(folder: Path, part: str, rows: Sequence[Row]) -> None:
    with (folder / f"{part}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "history_item_title", "item_title", "history_item_id", "item_id", "item_sid"])
        writer.writerows([user, "['a, \"b\"']", "t", str(history), item, sid(item)] for user, history, item in rows)


def write_folder(folder: Path, parts: Sequence[str] = ("train", "valid", "test")) -> str:
    (folder / "Toy.index.json").write_text(json.dumps(INDEX))
    for part in parts:
        write_part(folder, part, ROWS[part])
    return str(folder)


def items(split: Split, user: str) -> list[list[int]]:
    row = split.user_keys.index(user)
    return [part.row(row).tolist() for part in (split.train, split.validation, split.test)]


def test_the_rows_of_a_user_are_put_together(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = MiniOneRecReader(write_folder(tmp_path)).read()
    split = dataset.interactions
    assert isinstance(split, Split)
    assert dataset.name == "Toy"
    assert dataset.catalog.codes.tolist() == [list(row) for row in CODES]
    assert items(split, "a") == [[0, 1], [2, 3], [4]]
    assert items(split, "b") == [[5], [6], []]
    assert items(split, "c") == [[7], [], [0, 1]]


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    write_folder(tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert MiniOneRecReader(str(tmp_path)).read().catalog.n_items == 8


def test_a_field_too_large_to_be_one_is_refused_with_its_row(tmp_path: Path) -> None:
    write_folder(tmp_path)
    with (tmp_path / "test.csv").open("a") as file:
        file.write("a," + "x" * 200_000 + "\n")
    with pytest.raises(InputError, match=r"test\.csv, row 4: field larger than field limit"):
        MiniOneRecReader(str(tmp_path)).read()


def test_without_train_rows_the_histories_train_and_a_warning_says_so(tmp_path: Path) -> None:
    reader = MiniOneRecReader(write_folder(tmp_path, ("valid", "test")))
    with pytest.warns(UserWarning, match=r"no train\.csv, only the splits valid and test"):
        split = reader.read().interactions
    assert isinstance(split, Split)
    assert items(split, "a") == [[0, 1], [2, 3], [4]]


def test_histories_show_the_last_ten_items(tmp_path: Path) -> None:
    write_folder(tmp_path)
    done = [step % 8 for step in range(15)]
    for part, steps in (("train", range(1, 12)), ("valid", range(12, 14)), ("test", range(14, 15))):
        write_part(tmp_path, part, [("a", done[max(0, step - 10) : step], done[step]) for step in steps])
    split = MiniOneRecReader(str(tmp_path)).read().interactions
    assert isinstance(split, Split)
    assert items(split, "a") == [done[:12], done[12:14], done[14:]]


def test_titles_are_read_where_there_are_some(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    assert MiniOneRecReader(folder).read().catalog.texts is None
    (tmp_path / "Toy.item.json").write_text(json.dumps({"1": {"title": "a lamp", "description": "old"}}))
    assert MiniOneRecReader(folder).read().catalog.texts == ("", "a lamp", *[""] * 6)


@pytest.mark.parametrize(
    ("part", "text", "message"),
    [
        ("valid", "user_id,item_id,item_sid\n", r"valid\.csv: no column 'history_item_id', expected the columns"),
        ("valid", "a,[0],9,<a_0><b_0>", r"valid\.csv, row 1: item '9' is not among the 8 items"),
        ("valid", "a,[9],1,<a_0><b_1>", r"valid\.csv, row 1: item '9' is not among the 8 items"),
        ("test", "c,[7],1,<a_0><b_9>", r"test\.csv, row 1: item '1' has the ID '<a_0><b_9>', expected '<a_0><b_1>'"),
        ("test", "c,7,1,<a_0><b_1>", r"row 1: history_item_id is '7', expected a list of 1 to 10 items"),
        ("test", "c,[],1,<a_0><b_1>", r"row 1: history_item_id is '\[\]', expected a list of 1 to 10 items"),
        ("test", "c,open('x'),1,<a_0><b_1>", r"row 1: history_item_id is .*, expected a list"),
        ("test", "c,[7],1", r"row 1: item '1' has the ID None, expected '<a_0><b_1>'"),
        (
            "test",
            '"a","[0, 1, 2]",4,<a_1><b_1>',
            r"row 1: user 'a' has the history \[0, 1, 2\], expected the last items of the rows before: 0, 1, 2, 3",
        ),
    ],
)
def test_wrong_rows_are_refused_with_file_and_row(part: str, text: str, message: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    header = "" if text.startswith("user_id") else "user_id,history_item_id,item_id,item_sid\n"
    (tmp_path / f"{part}.csv").write_text(f"{header}{text}\n")
    with pytest.raises(InputError, match=message):
        MiniOneRecReader(folder).read()


def test_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \*\.index\.json, valid\.csv, test\.csv, expected"):
        MiniOneRecReader(str(tmp_path)).read()
    folder = write_folder(tmp_path, ("train", "valid"))
    with pytest.raises(InputError, match=r"no test\.csv, expected \*\.index\.json, valid\.csv, test\.csv"):
        MiniOneRecReader(folder).read()


@pytest.mark.filterwarnings("ignore:.*no train.csv")
def test_office_has_the_published_counts_and_its_own_histories(data_folder: Path) -> None:
    data = SemanticIDDataModule(MiniOneRecReader(str(data_folder / "office")), max_history=10)
    assert (data.dataset_name, data.catalog.n_items, data.catalog.n_leaves) == ("Office_Products", 3_459, 3_444)
    split = data.split
    assert (len(split.validation.items), len(split.test.items), len(split.user_keys)) == (4_866, 4_866, 3_231)
    with (data_folder / "office" / "test.csv").open(newline="") as file:
        first_rows = {row["user_id"]: row for row in reversed(list(csv.DictReader(file)))}
    checked = 0
    for batch in data.test_dataloader():
        for user, history in zip(batch.users.tolist(), batch.history.tolist(), strict=True):
            row = first_rows[data.user_keys[user]]
            keys = [int(data.catalog.keys[item]) for item in history if item >= 0]
            assert keys == ast.literal_eval(row["history_item_id"])
            checked += 1
    assert checked == len(first_rows) == 2_024
