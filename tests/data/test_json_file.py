from pathlib import Path

import pytest

from padrec.catalog import InputError
from padrec.data.json_file import read_json_lines, read_json_object


def written(folder: Path, content: bytes) -> Path:
    (folder / "some.json").write_bytes(content)
    return folder / "some.json"


def test_an_object_keeps_the_order_of_its_keys(tmp_path: Path) -> None:
    assert list(read_json_object(written(tmp_path, b'{"b": 1, "a": [2]}'), "key -> value")) == ["b", "a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1, "a": 2}', "key 'a' occurs twice, expected every key once"),
        (b"{}", "an empty object, expected an object key -> value"),
        (b"[1]", "a JSON list, expected an object key -> value"),
        (b'{"a":\n1,}', r"no valid JSON at line 2, column \d"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
    ],
)
def test_what_is_no_object_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read_json_object(written(tmp_path, content), "key -> value")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.json: no such file"):
        read_json_object(tmp_path / "absent.json", "key -> value")


def test_lines_come_with_their_places(tmp_path: Path) -> None:
    path = written(tmp_path, b'{"a": 1}\n{"a": 2}\n')
    assert list(read_json_lines(path, "rows")) == [(f"{path}, line 1", {"a": 1}), (f"{path}, line 2", {"a": 2})]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty, expected lines rows"),
        (b'{"a": 1}\n{', r"line 2: no valid JSON .*, expected rows"),
        (b"[1]", "line 1: a JSON list, expected rows"),
    ],
)
def test_lines_that_are_no_objects_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        list(read_json_lines(written(tmp_path, content), "rows"))


def test_only_line_ends_end_a_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"a": "x\u2028y\u0085z"}\r\n{"a": "b"}\r{"a": "c"}\n'.encode())
    rows = [row["a"] for _, row in read_json_lines(path, "rows")]
    assert rows == ["x\u2028y\u0085z", "b", "c"]


def test_half_surrogates_and_other_encodings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "\\ud83d\\ude00"}\n{"a": "\\ud83d"}\n')
    with pytest.raises(InputError, match=r"rows\.jsonl, line 2: half of a surrogate pair"):
        list(read_json_lines(path, "rows"))
    path.write_text('{"a": "\\ud83d"}')
    with pytest.raises(InputError, match=r"rows\.jsonl: half of a surrogate pair"):
        read_json_object(path, "a -> b")
    path.write_bytes('{"a": "\u00e9"}'.encode("latin-1"))
    with pytest.raises(InputError, match=r"rows\.jsonl: byte 7 is not UTF-8"):
        read_json_object(path, "a -> b")
