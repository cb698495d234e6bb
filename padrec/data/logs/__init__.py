"""Raw interaction logs, one source per on-disk format."""

from typing import TYPE_CHECKING

from padrec.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from padrec.data.logs.amazon import AmazonReviews2014 as AmazonReviews2014
    from padrec.data.logs.amazon import AmazonReviews2018 as AmazonReviews2018
    from padrec.data.logs.amazon import AmazonReviews2023 as AmazonReviews2023
    from padrec.data.logs.source import ItemText as ItemText
    from padrec.data.logs.source import LogSource as LogSource
    from padrec.data.logs.source import LogTable as LogTable
    from padrec.data.logs.table_log import TableLog as TableLog
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
