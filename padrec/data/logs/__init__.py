"""Raw interaction logs, one source per on-disk format."""

from padrec.data.logs.amazon import AmazonReviews2014, AmazonReviews2018, AmazonReviews2023
from padrec.data.logs.source import ItemText, LogSource, LogTable
from padrec.data.logs.table_log import TableLog

__all__ = [
    "AmazonReviews2014",
    "AmazonReviews2018",
    "AmazonReviews2023",
    "ItemText",
    "LogSource",
    "LogTable",
    "TableLog",
]
