import json
from pathlib import Path

import pytest

from padrec.catalog import InputError
from padrec.data import Interactions, LCRecReader
from tests.data.toy_data import CODES, INDEX, write_lcrec

LOG = {"7": [0, 3, 2], "x": ["1", "7"]}


def test_a_folder_is_read_with_its_own_keys(tmp_path: Path) -> None:
    dataset = LCRecReader(str(write_lcrec(tmp_path, INDEX, LOG))).read()
    assert dataset.name == "Toy"
    assert dataset.interactions.user_keys == ("7", "x")
    assert dataset.catalog.keys == tuple(INDEX)
    assert dataset.catalog.codes.tolist() == [list(row) for row in CODES]
    assert dataset.catalog.texts is None
    assert isinstance(dataset.interactions, Interactions)
    assert dataset.interactions.sequences.row(0).tolist() == [0, 3, 2]
    assert dataset.interactions.sequences.row(1).tolist() == [1, 7]


def test_titles_are_read_where_there_are_some(tmp_path: Path) -> None:
    write_lcrec(tmp_path, INDEX, LOG)
    (tmp_path / "Toy.item.json").write_text(json.dumps({"0": {"title": "a lamp", "description": "old"}}))
    assert LCRecReader(str(tmp_path)).read().catalog.texts == ("a lamp", *[""] * 7)
    (tmp_path / "Toy.item.json").write_text(json.dumps({"0": {"description": "old"}}))
    with pytest.raises(InputError, match=r"Toy\.item\.json: item '0' has no title"):
        LCRecReader(str(tmp_path)).read()


def test_one_of_several_data_sets_is_chosen_by_name(tmp_path: Path) -> None:
    write_lcrec(tmp_path, INDEX, LOG, name="A")
    write_lcrec(tmp_path, INDEX, {"b": [1, 2, 3]}, name="B")
    assert LCRecReader(str(tmp_path), name="B").read().interactions.user_keys == ("b",)
    with pytest.raises(InputError, match=r"expected one file \*\.index\.json, found A\.index\.json, B\.index\.json"):
        LCRecReader(str(tmp_path)).read()


@pytest.mark.parametrize(
    ("index", "log", "message"),
    [
        ('{"0": ["<a_1>"', LOG, r"Toy\.index\.json: no valid JSON at line 1, column 15"),
        ("[]", LOG, r"Toy\.index\.json: a JSON list, expected an object item -> code strings"),
        ("{}", LOG, r"Toy\.index\.json: an empty object"),
        ('{"0": ["<a_1>"], "0": ["<a_2>"]}', LOG, r"Toy\.index\.json: key '0' occurs twice"),
        ({**INDEX, "9": []}, LOG, r"Toy\.index\.json: item '9' has no semantic ID"),
        ({**INDEX, "9": "<a_1>"}, LOG, "item '9' has '<a_1>', expected a list"),
        ({**INDEX, "9": ["<a_1>"]}, LOG, "item '9' has 1 codes, item '0' has 2"),
        ({**INDEX, "9": ["<a_1>", "<a_2>"]}, LOG, "item '9' has '<a_2>' in slot 1, expected a code like \"<b_7>\""),
        ({**INDEX, "9": ["<a_1>", "<b_-2>"]}, LOG, "item '9' has '<b_-2>' in slot 1"),
        ({**INDEX, "9": ["<a_1>", 2]}, LOG, "item '9' has 2 in slot 1"),
        ({**INDEX, "9": ["<a_1>", "<b_99999999999>"]}, LOG, "'<b_99999999999>' in slot 1"),
        (INDEX, "{", r"Toy\.inter\.json: no valid JSON"),
        (INDEX, '{"u": [0], "u": [1]}', r"Toy\.inter\.json: key 'u' occurs twice"),
        (INDEX, {"u": [0, 8]}, r"Toy\.inter\.json: user 'u': item '8' is not among the 8 items of .*Toy\.index\.json"),
        (INDEX, {"u": 3}, r"Toy\.inter\.json: user 'u' has 3, expected a list"),
        (INDEX, {"u": [0], "v": []}, r"Toy\.inter\.json: 1 user \('v'\) without items"),
    ],
)
def test_wrong_files_are_refused_with_file_and_key(tmp_path: Path, index: object, log: object, message: str) -> None:
    write_lcrec(tmp_path, index, log)
    with pytest.raises(InputError, match=message):
        LCRecReader(str(tmp_path)).read()


def test_missing_and_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such folder, expected \*\.index\.json, .* PADREC_DATA"):
        LCRecReader(str(tmp_path / "nowhere")).read()
    with pytest.raises(InputError, match=r"no \*\.index\.json, \*\.inter\.json, expected \*\.index"):
        LCRecReader(str(tmp_path)).read()
    with pytest.raises(InputError, match=r"no Toy\.index\.json, Toy\.inter\.json, expected Toy\.index"):
        LCRecReader(str(tmp_path), name="Toy").read()
    write_lcrec(tmp_path, INDEX, LOG)
    (tmp_path / "Toy.inter.json").write_bytes(b'{"u\xff": [1]}')
    with pytest.raises(InputError, match=r"Toy\.inter\.json: byte 3 is not UTF-8"):
        LCRecReader(str(tmp_path)).read()


def test_beauty_has_the_published_counts(data_folder: Path) -> None:
    dataset = LCRecReader(str(data_folder / "beauty")).read()
    assert (dataset.name, len(dataset.interactions.user_keys)) == ("Beauty", 22_363)
    assert (dataset.catalog.n_items, dataset.catalog.n_leaves, dataset.catalog.n_slots) == (12_101, 12_088, 4)
    assert isinstance(dataset.interactions, Interactions)
    lengths = dataset.interactions.sequences.lengths
    assert (int(lengths.sum()), int(lengths.max()), int(lengths.median())) == (198_502, 204, 6)
