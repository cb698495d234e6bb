import json
from pathlib import Path
from typing import Any

import pytest

from padrec.catalog import InputError
from padrec.data import AmazonReviews2014, AmazonReviews2018, AmazonReviews2023
from padrec.data.logs.amazon import AmazonReviews
from padrec.data.logs.source import ItemText
from tests.data.logs.log_samples import (
    EXPECTED,
    METADATA_2014,
    METADATA_2018,
    METADATA_2023,
    REVIEWS_2014,
    REVIEWS_2018,
    REVIEWS_2023,
    logged,
    texts,
    write_json_lines,
    write_lines,
)

RELEASES: dict[str, tuple[type[AmazonReviews], list[dict[str, Any]], list[str]]] = {
    "2014": (AmazonReviews2014, REVIEWS_2014, METADATA_2014),
    "2018": (AmazonReviews2018, REVIEWS_2018, METADATA_2018),
    "2023": (AmazonReviews2023, REVIEWS_2023, METADATA_2023),
}


@pytest.mark.parametrize("suffix", [".json", ".json.gz"])
@pytest.mark.parametrize("release", RELEASES)
def test_reviews_and_texts_are_read_compressed_or_not(release: str, suffix: str, tmp_path: Path) -> None:
    source, reviews, metadata = RELEASES[release]
    review_path = write_json_lines(tmp_path / f"reviews{suffix}", reviews)
    metadata_path = write_lines(tmp_path / f"meta{suffix}", metadata)
    log = source(str(review_path), str(metadata_path))
    assert logged(log) == EXPECTED
    toy = ItemText("B1", "A cat's toy", "Soft. Red.", "Tom", ("Pets", "Cats", "Toys"))
    assert texts(log) == [toy, ItemText("B2")]
    assert list(log.files()) == [review_path, metadata_path]


def test_the_content_says_whether_a_file_is_compressed(tmp_path: Path) -> None:
    packed = write_json_lines(tmp_path / "reviews.json.gz", REVIEWS_2014)
    assert logged(AmazonReviews2014(str(packed.rename(tmp_path / "reviews.json")))) == EXPECTED


def test_a_brand_is_the_store_where_no_other_is_named(tmp_path: Path) -> None:
    path = write_json_lines(tmp_path / "meta.jsonl", [{"parent_asin": "B1", "store": "Shop"}])
    (found,) = texts(AmazonReviews2023("reviews.jsonl", str(path)))
    assert found.brand == "Shop"


def test_without_metadata_there_are_no_texts() -> None:
    source = AmazonReviews2018("reviews.json.gz")
    assert texts(source) == []
    assert list(source.files()) == [Path("reviews.json.gz")]


def test_metadata_lines_are_not_executed(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    path = write_lines(tmp_path / "meta.json", [f"{{'asin': open({str(trap)!r}, 'w').name}}"])
    with pytest.raises(InputError, match=r"meta\.json, line 1: no Python literal .*, expected a dict"):
        texts(AmazonReviews2014("reviews.json.gz", str(path)))
    assert not trap.exists()


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"reviewerID": "A"', r"line 4: no valid JSON at column 19 .*, expected an object"),
        ("[1]", r"line 4: a JSON list, expected an object"),
        ('{"asin": "B", "overall": 1, "unixReviewTime": 1}', r"line 4: reviewerID is None, expected a string"),
        ('{"reviewerID": 7, "asin": "B", "overall": 1, "unixReviewTime": 1}', "line 4: reviewerID is 7, expected"),
        ('{"reviewerID": "A", "asin": "", "overall": 1, "unixReviewTime": 1}', "line 4: asin is '', expected"),
        ('{"reviewerID": "A", "asin": "B", "overall": "1", "unixReviewTime": 1}', "line 4: overall is '1', expected"),
        ('{"reviewerID": "A", "asin": "B", "unixReviewTime": 1}', "line 4: overall is None, expected a number"),
        (
            '{"reviewerID": "A", "asin": "B", "overall": 1, "unixReviewTime": 1.5}',
            r"line 4: unixReviewTime is 1\.5, expected a whole number of seconds",
        ),
        (
            '{"reviewerID": "A", "asin": "B", "overall": 1, "unixReviewTime": 99999999999999}',
            "line 4: unixReviewTime is 99999999999999, expected a whole number of seconds",
        ),
        (
            r'{"reviewerID": "A", "asin": "B", "overall": 1, "unixReviewTime": 1, "text": "\ud83d"}',
            "line 4: half of a surrogate pair",
        ),
        (
            '{"reviewerID": "A", "asin": "B", "overall": 1, "unixReviewTime": 1400000000000}',
            "line 4: unixReviewTime is 1400000000000, expected a whole number of seconds since 1970, before 2100",
        ),
    ],
)
def test_a_wrong_review_is_refused_with_its_line(line: str, message: str, suffix: str, tmp_path: Path) -> None:
    good = [json.dumps(review) for review in REVIEWS_2014]
    path = write_lines(tmp_path / f"reviews.json{suffix}", [good[0], "", good[1], line, good[2]])
    with pytest.raises(InputError, match=rf"reviews\.json{suffix}, {message}"):
        logged(AmazonReviews2014(str(path)))


def test_missing_empty_and_truncated_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.json\.gz: no such file"):
        logged(AmazonReviews2014(str(tmp_path / "absent.json.gz")))
    empty = write_lines(tmp_path / "empty.json.gz", [])
    with pytest.raises(InputError, match=r"empty\.json\.gz: empty, expected one JSON object per line"):
        logged(AmazonReviews2014(str(empty)))
    whole = write_json_lines(tmp_path / "reviews.json.gz", REVIEWS_2014 * 1000).read_bytes()
    (tmp_path / "cut.json.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.json\.gz: broken after line .*, expected a whole gzip file"):
        logged(AmazonReviews2014(str(tmp_path / "cut.json.gz")))


@pytest.mark.parametrize(
    ("release", "line", "message"),
    [
        ("2014", "{'asin': 'B1'", r"line 1: no Python literal"),
        ("2014", "['B1']", r"line 1: a list, expected an object with asin"),
        ("2018", '{"asin": 5}', r"line 1: asin is 5, expected a string"),
        ("2018", "{'asin': 'B1'}", r"line 1: no valid JSON at column 2"),
        ("2023", '{"asin": "B1"}', r"line 1: parent_asin is None, expected a string"),
    ],
)
def test_wrong_metadata_are_refused_with_their_line(release: str, line: str, message: str, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "meta.json", [line])
    with pytest.raises(InputError, match=rf"meta\.json, {message}"):
        texts(RELEASES[release][0]("reviews.json", str(path)))


def test_line_separators_inside_strings_end_no_line(tmp_path: Path) -> None:
    review = {"reviewerID": "A\u2028", "asin": "B\u0085", "overall": 1, "unixReviewTime": 1}
    path = write_lines(tmp_path / "reviews.json", [json.dumps(review, ensure_ascii=False)])
    assert logged(AmazonReviews2014(str(path))) == [("A\u2028", "B\u0085", 1_000_000, 1.0)]
    path.write_bytes(json.dumps(review, ensure_ascii=False).encode("latin-1", "replace"))
    with pytest.raises(InputError, match=r"reviews\.json, line 1: byte \d+ is not UTF-8"):
        logged(AmazonReviews2014(str(path)))


def test_decoration_that_cannot_be_written_is_replaced_and_nesting_refused(tmp_path: Path) -> None:
    path = tmp_path / "meta.jsonl"
    path.write_text(r'{"parent_asin": "x", "title": "Toy \ud83d"}' + "\n")
    assert [item.title for item in texts(AmazonReviews2023("reviews.jsonl", str(path)))] == ["Toy ?"]
    path.write_text('{"parent_asin": "x", "title": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(InputError, match=r"meta\.jsonl, line 1: JSON nested too deeply"):
        texts(AmazonReviews2023("reviews.jsonl", str(path)))
