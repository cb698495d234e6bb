"""Amazon reviews, as published in 2014, 2018 and 2023."""

import ast
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from padrec.data.logs.item_metadata import names, parse_json, read_metadata, text
from padrec.data.logs.json_log import JsonFields, read_json_log
from padrec.data.logs.source import ItemText, LogSource, LogTable

if TYPE_CHECKING:
    from ibis.backends.duckdb import Backend


class AmazonReviews(LogSource):
    """A file of reviews, one JSON object per line, and a file of item metadata, one record per line.

    Args:
        reviews: file of reviews.
        metadata: file of item metadata; None leaves the items without text.
    """

    _fields: ClassVar[JsonFields]

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
        """One interaction per review.

        Raises:
            InputError: the file is missing, or a line is no review.
        """
        yield read_json_log(reader, self.reviews, self._fields)

    def item_texts(self, reader: "Backend") -> Iterator[ItemText]:
        """One text per line of metadata.

        Raises:
            InputError: the file is missing, or a line is no record with the item's key.
        """
        if self.metadata is None:
            return
        for item, record in read_metadata(self.metadata, self._parse, key=self._fields.item):
            yield self._text_of(item, record)

    @staticmethod
    def _parse(line: str) -> object:
        """A record of the metadata; a ValueError says what is wrong."""
        return parse_json(line)

    @staticmethod
    @abstractmethod
    def _text_of(item: str, record: Mapping[str, object]) -> ItemText:
        """The text in an item's record."""


class AmazonReviews2014(AmazonReviews):
    """Reads `reviews_<category>.json.gz` (or its 5-core) and `meta_<category>.json.gz`, compressed or not.

    Reviews are JSON lines; metadata lines are Python dicts, read as literals: nothing in them is executed.
    Data: J. McAuley et al., "Image-based recommendations on styles and substitutes", SIGIR 2015.

    Args:
        reviews: file of reviews.
        metadata: file of item metadata; None leaves the items without text.
    """

    _fields = JsonFields("reviewerID", "asin", "overall", "unixReviewTime", time_unit="seconds")

    @staticmethod
    def _parse(line: str) -> object:
        try:
            return ast.literal_eval(line.strip())
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
            raise ValueError(f"no Python literal ({error}), expected a dict") from None

    @staticmethod
    def _text_of(item: str, record: Mapping[str, object]) -> ItemText:
        return _item_text(item, record, record.get("brand"), record.get("categories"))


class AmazonReviews2018(AmazonReviews):
    """Reads `<category>.json.gz` (or `<category>_5.json.gz`) and `meta_<category>.json.gz`, compressed or not.

    Both are JSON lines. Data: J. Ni et al., "Justifying recommendations using distantly-labeled reviews and
    fine-grained aspects", EMNLP 2019.

    Args:
        reviews: file of reviews.
        metadata: file of item metadata, which repeats some items; None leaves the items without text.
    """

    _fields = JsonFields("reviewerID", "asin", "overall", "unixReviewTime", time_unit="seconds")

    @staticmethod
    def _text_of(item: str, record: Mapping[str, object]) -> ItemText:
        return _item_text(item, record, record.get("brand"), record.get("category"))


class AmazonReviews2023(AmazonReviews):
    """Reads `<category>.jsonl.gz` and `meta_<category>.jsonl.gz`, compressed or not.

    Both are JSON lines. An item is a `parent_asin`, which covers all variants of a product (colours, sizes). The files
    with ratings only are CSV: `TableLog` reads them. Data: Y. Hou et al., "Bridging language and items for retrieval
    and recommendation", arXiv 2403.03952.

    Args:
        reviews: file of reviews.
        metadata: file of item metadata; None leaves the items without text.
    """

    _fields = JsonFields("user_id", "parent_asin", "rating", "timestamp", time_unit="milliseconds")

    @staticmethod
    def _text_of(item: str, record: Mapping[str, object]) -> ItemText:
        details = record.get("details")
        brand = details.get("Brand") if isinstance(details, dict) else None
        # Many records name the brand as the store only.
        return _item_text(item, record, brand or record.get("store"), record.get("categories"))


def _item_text(item: str, record: Mapping[str, object], brand: object, categories: object) -> ItemText:
    return ItemText(item, text(record.get("title")), text(record.get("description")), text(brand), names(categories))
