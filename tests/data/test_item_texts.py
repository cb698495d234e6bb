import json
import logging
from pathlib import Path

import pytest

from padrec.catalog import InputError
from padrec.cli import main
from padrec.data import ItemJSON, PreparedTexts

_META = """item,title,brand,description
i0,Red lamp,Acme,A lamp.
i1,Vase,,
"""


def write(folder: Path, content: object) -> str:
    path = folder / "shop.item.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_fields_are_lines_in_the_order_asked_for(tmp_path: Path) -> None:
    content = {"7": {"brand": "B", "title": " T ", "description": ["one", "two"]}, "8": {"title": "", "brand": "C"}}
    found = ItemJSON(write(tmp_path, content), fields=["title", "brand", "colour", "description"]).read()
    assert found.keys == ("7", "8")
    assert found.texts == ("T\nB\none two", "C")
    assert found.titles == ("T", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"7": "T"}, r"item '7' has 'T', expected an object of properties$"),
        ({"7": {"title": 3}}, r"item '7' has the title 3, expected text$"),
        ({"7": {"title": ["T", None]}}, r"item '7' has the title \['T', None\], expected text$"),
        ({"7": {"colour": "red"}}, r"item '7' has no text in the fields title, brand, categories, description$"),
        ({}, r"an empty object, expected an object item -> properties$"),
    ],
)
def test_items_without_a_text_are_refused(content: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        ItemJSON(write(tmp_path, content)).read()


def test_no_fields_are_refused() -> None:
    with pytest.raises(InputError, match=r"^no fields of items to read, expected at least one$"):
        ItemJSON("shop.item.json", fields=[])


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Three items, one of which has no text."""
    rows = [f"u{user},i{item},{10 * user + item}\n" for user in range(3) for item in range(3)]
    (tmp_path / "log.csv").write_text("user,item,time\n" + "".join(rows))
    (tmp_path / "meta.csv").write_text(_META)
    source = f"--source padrec.TableLog --source.interactions [{tmp_path}/log.csv] --source.items {tmp_path}/meta.csv "
    source += "--source.title title --source.brand brand --source.description description"
    main(["prepare", *source.split(), "--output", str(tmp_path / "shop"), "--user_core=3", "--item_core=1"])
    return tmp_path / "shop"


def test_prepared_fields_are_lines_and_keys_replace_missing_texts(
    prepared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = PreparedTexts(str(prepared)).read()
    texts = {"i0": "Red lamp\nAcme\nA lamp.", "i1": "Vase", "i2": "i2"}
    assert dict(zip(found.keys, found.texts, strict=True)) == texts
    assert dict(zip(found.keys, found.titles, strict=True)) == {"i0": "Red lamp", "i1": "Vase", "i2": "i2"}
    assert "1 of 3 items have no text; their keys replace it" in caplog.text


def test_prepared_fields_can_be_chosen(prepared: Path) -> None:
    assert set(PreparedTexts(str(prepared), ["title"]).read().texts) == {"Red lamp", "Vase", "i2"}


def test_other_fields_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"fields \['colour'\] of prepared items, expected some of title, brand"):
        PreparedTexts(str(tmp_path), ["colour"])
    with pytest.raises(InputError, match=r"no prepared\.json, expected a folder written by `padrec prepare`"):
        PreparedTexts(str(tmp_path)).read()
