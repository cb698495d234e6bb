"""Raw interaction logs, one source per on-disk format."""

from padrec.data.logs.amazon_2014 import AmazonReviews2014
from padrec.data.logs.amazon_2018 import AmazonReviews2018
from padrec.data.logs.amazon_2023 import AmazonReviews2023
from padrec.data.logs.source import LOG_SCHEMA, ItemText, LogChunk, LogSource
from padrec.data.logs.table_log import TableLog

__all__ = [
    "LOG_SCHEMA",
    "AmazonReviews2014",
    "AmazonReviews2018",
    "AmazonReviews2023",
    "ItemText",
    "LogChunk",
    "LogSource",
    "TableLog",
]
