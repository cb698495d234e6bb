"""What the published releases of Amazon reviews have in common."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from padrec.data.logs.item_metadata import parse_json, read_metadata
from padrec.data.logs.json_log import JsonFields, read_json_log
from padrec.data.logs.source import ItemText, LogChunk, LogSource


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
        """Nothing but the files matters."""
        return {}

    def interactions(self) -> Iterator[LogChunk]:
        """One interaction per review.

        Raises:
            InputError: the file is missing, or a line is no review.
        """
        return read_json_log(self.reviews, self._fields)

    def item_texts(self) -> Iterator[ItemText]:
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
