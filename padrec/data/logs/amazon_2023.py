"""Amazon reviews as published in 2023."""

from collections.abc import Mapping

from padrec.data.logs.amazon import AmazonReviews
from padrec.data.logs.item_metadata import names, text
from padrec.data.logs.json_log import JsonFields
from padrec.data.logs.source import ItemText


class AmazonReviews2023(AmazonReviews):
    """Reads `<category>.jsonl.gz` and `meta_<category>.jsonl.gz`, compressed or not.

    Both are JSON lines. An item is a `parent_asin`, which stands for all variants of a product (colours, sizes). The
    files with ratings only are CSV: `TableLog` reads them. Data: Y. Hou et al., "Bridging language and items for
    retrieval and recommendation", arXiv 2403.03952.

    Args:
        reviews: file of reviews.
        metadata: file of item metadata; None leaves the items without text.
    """

    _fields = JsonFields(
        user="user_id", item="parent_asin", rating="rating", time="timestamp", time_unit="milliseconds"
    )

    @staticmethod
    def _text_of(item: str, record: Mapping[str, object]) -> ItemText:
        details = record.get("details")
        brand = details.get("Brand") if isinstance(details, dict) else None
        return ItemText(
            item,
            text(record.get("title")),
            text(record.get("description")),
            text(brand or record.get("store")),  # many records name the brand as the store only
            names(record.get("categories")),
        )
