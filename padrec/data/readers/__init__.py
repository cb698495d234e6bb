"""One reader per on-disk format."""

from padrec.data.readers.atspeed import AtSpeedReader
from padrec.data.readers.lcrec import LCRecReader
from padrec.data.readers.minionerec import MiniOneRecReader
from padrec.data.readers.prepared import PreparedReader
from padrec.data.readers.reader import Dataset, Reader
from padrec.data.readers.synthetic import SyntheticReader

__all__ = ["AtSpeedReader", "Dataset", "LCRecReader", "MiniOneRecReader", "PreparedReader", "Reader", "SyntheticReader"]
