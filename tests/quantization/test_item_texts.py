import json
from pathlib import Path

import pytest

from padrec.catalog import InputError
from padrec.quantization import ItemJSON


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
