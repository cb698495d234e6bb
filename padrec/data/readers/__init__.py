"""One reader per on-disk format."""

from typing import TYPE_CHECKING

from padrec.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from padrec.data.readers.atspeed import AtSpeedReader as AtSpeedReader
    from padrec.data.readers.lcrec import LCRecReader as LCRecReader
    from padrec.data.readers.minionerec import MiniOneRecReader as MiniOneRecReader
    from padrec.data.readers.prepared import PreparedReader as PreparedReader
    from padrec.data.readers.reader import Dataset as Dataset
    from padrec.data.readers.reader import Reader as Reader
    from padrec.data.readers.semantic_id_index import read_index as read_index
    from padrec.data.readers.synthetic import SyntheticReader as SyntheticReader
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
