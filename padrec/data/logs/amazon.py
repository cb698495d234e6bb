"""Amazon reviews, as published in 2014, 2018 and 2023."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from padrec.catalog import InputError
from padrec.data.logs.source import LATEST, ItemText, LogSource, LogTable
from padrec.data.text_file import is_gzipped, python_literal, read_lines

if TYPE_CHECKING:
    from ibis.backends.duckdb import Backend

_MICROSECONDS = {"seconds": 1_000_000, "milliseconds": 1_000}


class _Fields(NamedTuple):
    """What the fields of a review are called."""

    user: str  # a string that is not empty
    item: str  # a string that is not empty
    rating: str  # a number
    time: str  # a whole number since 1970
    time_unit: Literal["seconds", "milliseconds"]
    categories: str  # of the metadata


class AmazonReviews(LogSource):
    """A file of reviews, one JSON object per line, and a file of item metadata, one record per line.

    Args:
        reviews: file of reviews.
        metadata: file of item metadata; None leaves the items without text.
    """

    _fields: ClassVar[_Fields]

    def __init__(self, reviews: str, metadata: str | None = None) -> None:
        self.reviews = Path(reviews)
        self.metadata = None if metadata is None else Path(metadata)

    def files(self) -> Sequence[Path]:
        """Reviews, then metadata."""
        return [self.reviews] if self.metadata is None else [self.reviews, self.metadata]

    def settings(self) -> dict[str, object]:
        """None: only the files matter."""
        return {}

    def interactions(self, reader: "Backend") -> Iterator[LogTable]:
        """One interaction per review; other fields are ignored."""
        import ibis

        path, fields = self.reviews, self._fields
        columns = dict.fromkeys((fields.user, fields.item, fields.time, fields.rating), "JSON")
        compression = "gzip" if is_gzipped(path) else "none"
        raw = reader.read_json(str(path), columns=columns, format="newline_delimited", compression=compression)
        user, item = raw[fields.user].str, raw[fields.item].str
        time, rating = raw[fields.time].int, raw[fields.rating].float
        factor = _MICROSECONDS[fields.time_unit]
        good = (user != "") & (item != "") & (time.abs() <= LATEST // factor) & ~rating.isnan()
        rows = raw.select(
            user=user,
            item=item,
            time=good.ifelse(time, 0) * factor,
            rating=rating,
            wrong=good.fill_null(False).ifelse(ibis.null(str), "wrong"),
        )
        yield LogTable(path, rows, self._first_wrong_line)

    def item_texts(self, reader: "Backend") -> Iterator[ItemText]:
        """One text per line of metadata."""
        if self.metadata is None:
            return
        key = self._fields.item
        for number, line in read_lines(self.metadata):
            place = f"{self.metadata}, line {number}"
            try:
                record = self._parse(line)
            except ValueError as error:
                raise InputError(f"{place}: {error}") from None
            if not isinstance(record, dict):
                raise InputError(f"{place}: a {type(record).__name__}, expected an object with {key}")
            item = record.get(key)
            if not isinstance(item, str) or not item:
                raise InputError(f"{place}: {key} is {item!r}, expected a string that is not empty")
            yield ItemText.published(item, record, self._brand(record), record.get(self._fields.categories))

    @staticmethod
    def _parse(line: str) -> object:
        """A record of the metadata; a ValueError says what is wrong."""
        return _parse_json(line)

    @staticmethod
    def _brand(record: Mapping[str, object]) -> object:
        return record.get("brand")

    def _first_wrong_line(self, reason: str) -> str:
        """Name the first wrong line: DuckDB is fast but does not count blank lines; only a wrong file is read again."""
        number = 0
        for number, line in read_lines(self.reviews):
            if problem := _problem(line, self._fields):
                return f", line {number}: {problem}"
        if number == 0:
            return ": empty, expected one JSON object per line"
        return f": cannot be read ({' '.join(reason.split())}), expected one JSON object per line"


class AmazonReviews2014(AmazonReviews):
    """Reads `reviews_<category>.json.gz` (or its 5-core) and `meta_<category>.json.gz`, compressed or not.

    Reviews are JSON lines; metadata lines are Python dicts, read as literals: nothing in them is executed.
    Data: J. McAuley et al., "Image-based recommendations on styles and substitutes", SIGIR 2015.
    """

    _fields = _Fields("reviewerID", "asin", "overall", "unixReviewTime", "seconds", "categories")

    @staticmethod
    def _parse(line: str) -> object:
        try:
            return python_literal(line.strip())
        except ValueError as error:
            raise ValueError(f"no Python literal ({error}), expected a dict") from None


class AmazonReviews2018(AmazonReviews):
    """Reads `<category>.json.gz` (or `<category>_5.json.gz`) and `meta_<category>.json.gz`, compressed or not.

    Both are JSON lines; the metadata repeats some items. Data: J. Ni et al., "Justifying recommendations using
    distantly-labeled reviews and fine-grained aspects", EMNLP 2019.
    """

    _fields = AmazonReviews2014._fields._replace(categories="category")


class AmazonReviews2023(AmazonReviews):
    """Reads `<category>.jsonl.gz` and `meta_<category>.jsonl.gz`, compressed or not.

    Both are JSON lines. An item is a `parent_asin`, which covers all variants of a product (colours, sizes). The files
    with ratings only are CSV: `TableLog` reads them. Data: Y. Hou et al., "Bridging language and items for retrieval
    and recommendation", arXiv 2403.03952.
    """

    _fields = _Fields("user_id", "parent_asin", "rating", "timestamp", "milliseconds", "categories")

    @staticmethod
    def _brand(record: Mapping[str, object]) -> object:
        details = record.get("details")
        brand = details.get("Brand") if isinstance(details, dict) else None
        return brand or record.get("store")  # many records name the brand as the store only


def _problem(line: str, fields: _Fields) -> str | None:
    """What is wrong with a line of reviews."""
    try:
        record = _parse_json(line)
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return r"half of a surrogate pair (\ud800 to \udfff), expected whole characters"
    except ValueError as error:
        return str(error)
    if not isinstance(record, dict):
        return f"a JSON {type(record).__name__}, expected an object"
    for name in (fields.user, fields.item):
        if not isinstance(record.get(name), str) or not record[name]:
            return f"{name} is {record.get(name)!r}, expected a string that is not empty"
    rating, time = record.get(fields.rating), record.get(fields.time)
    if type(rating) not in (int, float) or rating != rating:
        return f"{fields.rating} is {rating!r}, expected a number"
    if type(time) is not int or abs(time) * _MICROSECONDS[fields.time_unit] > LATEST:
        return f"{fields.time} is {time!r}, expected a whole number of {fields.time_unit} since 1970, before 2100"
    return None


def _parse_json(line: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"no valid JSON at column {error.colno} ({error.msg}), expected an object") from None
    except RecursionError:
        raise ValueError("JSON nested too deeply, expected an object") from None
