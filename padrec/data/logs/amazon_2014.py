"""Amazon reviews as published in 2014."""

import ast
from collections.abc import Mapping

from padrec.data.logs.amazon import AmazonReviews
from padrec.data.logs.item_metadata import names, text
from padrec.data.logs.json_log import JsonFields
from padrec.data.logs.source import ItemText


class AmazonReviews2014(AmazonReviews):
    """Reads `reviews_<category>.json.gz` (or its 5-core) and `meta_<category>.json.gz`, compressed or not.

    Reviews are JSON lines; metadata lines are Python dicts, read as literals: nothing in them is executed.
    Data: J. McAuley et al., "Image-based recommendations on styles and substitutes", SIGIR 2015.

    Args:
        reviews: file of reviews.
        metadata: file of item metadata; None leaves the items without text.
    """

    _fields = JsonFields(user="reviewerID", item="asin", rating="overall", time="unixReviewTime", time_unit="seconds")

    @staticmethod
    def _parse(line: str) -> object:
        try:
            return ast.literal_eval(line.strip())
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
            raise ValueError(f"no Python literal ({error}), expected a dict") from None

    @staticmethod
    def _text_of(item: str, record: Mapping[str, object]) -> ItemText:
        categories = names(record.get("categories"))
        return ItemText(
            item, text(record.get("title")), text(record.get("description")), text(record.get("brand")), categories
        )
