"""Raw files as they are published, made up."""

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from padrec.data.logs.source import ItemText, LogSource
from padrec.data.preparation.engine import DuckDBEngine, connected
from padrec.data.preparation.queries import LOG, read_log
from padrec.data.preparation.stages import Progress, Stage

REVIEWS_2014 = [
    {
        "reviewerID": "A1",
        "asin": "B1",
        "overall": 5.0,
        "unixReviewTime": 1400000000,
        "reviewText": "good",
        "helpful": [0, 1],
    },
    {"reviewerID": "A2", "asin": "B2", "overall": 2.0, "unixReviewTime": 1390000000, "summary": "bad"},
    {"reviewerID": "A1", "asin": "B2", "overall": 4, "unixReviewTime": 1300000000},
]
REVIEWS_2018 = [
    {
        "reviewerID": "A1",
        "asin": "B1",
        "overall": 5.0,
        "unixReviewTime": 1400000000,
        "style": {"Size:": " 5"},
        "vote": "2",
    },
    {"reviewerID": "A2", "asin": "B2", "overall": 2.0, "unixReviewTime": 1390000000, "verified": True},
    {"reviewerID": "A1", "asin": "B2", "overall": 4.0, "unixReviewTime": 1300000000, "style": None},
]
REVIEWS_2023 = [
    {
        "user_id": "A1",
        "asin": "V9",
        "parent_asin": "B1",
        "rating": 5.0,
        "timestamp": 1400000000000,
        "images": [{"a": 1}],
    },
    {"user_id": "A2", "asin": "V8", "parent_asin": "B2", "rating": 2.0, "timestamp": 1390000000000, "images": []},
    {"user_id": "A1", "asin": "V7", "parent_asin": "B2", "rating": 4.0, "timestamp": 1300000000000},
]
# What all three say.
EXPECTED = [
    ("A1", "B1", 1_400_000_000_000_000, 5.0),
    ("A2", "B2", 1_390_000_000_000_000, 2.0),
    ("A1", "B2", 1_300_000_000_000_000, 4.0),
]
METADATA_2014 = [
    "{'asin': 'B1', 'title': \"A cat's toy\", 'description': 'Soft.\\n Red.', 'brand': 'Tom', "
    "'categories': [['Pets', 'Cats'], ['Pets', 'Toys']], 'salesRank': {'Toys': 3}, 'related': {'also_bought': ['B2']}}",
    "{'asin': 'B2', 'imUrl': 'http://x/y.jpg'}",
]
METADATA_2018 = [
    json.dumps(
        {
            "asin": "B1",
            "title": "A cat's toy",
            "description": ["Soft.", "", "Red."],
            "brand": "Tom",
            "category": ["Pets", "Cats", "Toys"],
            "price": "$3",
        }
    ),
    json.dumps({"asin": "B2", "description": [], "category": []}),
]
METADATA_2023 = [
    json.dumps(
        {
            "parent_asin": "B1",
            "title": "A cat's toy",
            "description": ["Soft.", "Red."],
            "store": "Shop",
            "details": {"Brand": "Tom"},
            "categories": ["Pets", "Cats", "Toys"],
            "price": None,
        }
    ),
    json.dumps({"parent_asin": "B2", "title": None, "store": None, "details": {}}),
]


def write_lines(path: Path, lines: Iterable[str]) -> Path:
    """Gzipped where the name says so."""
    text = "".join(f"{line}\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write_json_lines(path: Path, records: Sequence[object]) -> Path:
    return write_lines(path, map(json.dumps, records))


@contextmanager
def reader() -> Iterator[Any]:
    """DuckDB, as a preparation opens it."""
    with TemporaryDirectory() as folder, connected(DuckDBEngine(threads=1), Path(folder) / "scratch") as connection:
        yield connection.backend


def logged(source: LogSource) -> list[tuple[str, str, int, float | None]]:
    """All interactions of a source, as the stage `read` finds them."""
    with TemporaryDirectory() as folder, connected(DuckDBEngine(threads=1), Path(folder) / "scratch") as connection:
        (Path(folder) / "read").mkdir()
        with Progress("read") as progress:
            read_log(Stage(Path(folder) / "read", connection, progress), source, None)
        rows = connection.load(Path(folder) / "read" / LOG).order_by("position").to_pyarrow().to_pylist()
    return [(row["user"], row["item"], row["time"], row["rating"]) for row in rows]


def texts(source: LogSource) -> list[ItemText]:
    """All texts of a source."""
    with reader() as backend:
        return list(source.item_texts(backend))
