"""Amazon reviews as published in 2018."""

from collections.abc import Mapping

from padrec.data.logs.amazon import AmazonReviews
from padrec.data.logs.item_metadata import names, text
from padrec.data.logs.json_log import JsonFields
from padrec.data.logs.source import ItemText


class AmazonReviews2018(AmazonReviews):
    """Reads `<category>.json.gz` (or `<category>_5.json.gz`) and `meta_<category>.json.gz`, compressed or not.

    Both are JSON lines. Data: J. Ni et al., "Justifying recommendations using distantly-labeled reviews and
    fine-grained aspects", EMNLP 2019.

    Args:
        reviews: file of reviews.
        metadata: file of item metadata, which repeats some items; None leaves the items without text.
    """

    _fields = JsonFields(user="reviewerID", item="asin", rating="overall", time="unixReviewTime", time_unit="seconds")

    @staticmethod
    def _text_of(item: str, record: Mapping[str, object]) -> ItemText:
        categories = names(record.get("category"))
        return ItemText(
            item, text(record.get("title")), text(record.get("description")), text(record.get("brand")), categories
        )
