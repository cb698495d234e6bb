from pathlib import Path

import pytest

from padrec.catalog import InputError
from padrec.data import AtSpeedReader, Split
from tests.data.toy_data import write_atspeed

ROWS = {"train": "1 1 2 8\n2 3\n", "valid": "1\n2 4 5\n", "test": "1 6\n2\n"}


def test_rows_count_items_from_one_and_may_be_empty(tmp_path: Path) -> None:
    folder = tmp_path / "toys"
    folder.mkdir()
    dataset = AtSpeedReader(str(write_atspeed(folder, ROWS))).read()
    split = dataset.interactions
    assert isinstance(split, Split)
    assert (dataset.name, dataset.interactions.user_keys) == ("toys", ("1", "2"))
    assert [split.train.row(user).tolist() for user in range(2)] == [[0, 1, 7], [2]]
    assert [split.validation.row(user).tolist() for user in range(2)] == [[], [3, 4]]
    assert [split.test.row(user).tolist() for user in range(2)] == [[5], []]
    assert dataset.catalog.keys[7] == "7"


@pytest.mark.parametrize(
    ("part", "text", "message"),
    [
        ("train", "1 1\n2 9\n", r"sequential_train\.txt, line 2: user '2' has item 9, 0-based: item '8' is not among"),
        ("train", "1 0\n2\n", r"line 1: user '1' has item 0, 0-based: item '-1' is not among"),
        ("valid", "1 x\n2\n", r"sequential_valid\.txt, line 1: user '1' has 'x', expected an item number"),
        ("test", "1 1\n\n2\n", r"sequential_test\.txt, line 2: empty"),
        ("test", "1 1\n1 2\n2\n", r"line 2: user '1' has a row already"),
        ("test", "1 1\n", r"sequential_test\.txt: no row for user '2' of sequential_train\.txt"),
        ("valid", "1\n2\n3 1\n", r"sequential_train\.txt: no row for user '3' of sequential_valid\.txt"),
    ],
)
def test_wrong_rows_are_refused_with_file_and_line(tmp_path: Path, part: str, text: str, message: str) -> None:
    write_atspeed(tmp_path, {**ROWS, part: text})
    with pytest.raises(InputError, match=message):
        AtSpeedReader(str(tmp_path)).read()


def test_a_user_without_any_item_is_refused(tmp_path: Path) -> None:
    write_atspeed(tmp_path, {part: text + "3\n" for part, text in ROWS.items()})
    with pytest.raises(InputError, match=r"1 user \('3'\) without items in any part"):
        AtSpeedReader(str(tmp_path)).read()


def test_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no \*\.json, sequential_train\.txt, .*, expected \*\.json, sequential_train"
    ):
        AtSpeedReader(str(tmp_path)).read()
    write_atspeed(tmp_path, {"train": "1 1\n"})
    with pytest.raises(InputError, match=r"no sequential_valid\.txt, sequential_test\.txt, expected \*\.json, seq"):
        AtSpeedReader(str(tmp_path)).read()


@pytest.mark.parametrize(
    ("name", "users", "items", "leaves", "interactions"),
    [
        ("beauty", 19_383, 12_035, 12_023, (122_241, 9_316, 7_313)),
        ("games", 49_156, 17_332, 17_289, (299_987, 22_609, 19_733)),
    ],
)
def test_real_folders_have_the_published_counts(
    data_folder: Path, name: str, users: int, items: int, leaves: int, interactions: tuple[int, int, int]
) -> None:
    dataset = AtSpeedReader(str(data_folder / "atspeed" / name)).read()
    assert (dataset.name, len(dataset.interactions.user_keys)) == (name, users)
    assert (dataset.catalog.n_items, dataset.catalog.n_leaves) == (items, leaves)
    split = dataset.interactions
    assert isinstance(split, Split)
    parts = (split.train, split.validation, split.test)
    assert tuple(int(part.lengths.sum()) for part in parts) == interactions
