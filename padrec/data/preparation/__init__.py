"""From a raw interaction log to a prepared folder."""

from padrec.data.preparation.engine import DuckDBEngine, Engine, SparkEngine
from padrec.data.preparation.leave_last_out import LeaveLastOut
from padrec.data.preparation.preparation import Preparation
from padrec.data.preparation.prepared_folder import PreparedFolder
from padrec.data.preparation.split_rule import SplitRule
from padrec.data.preparation.time_split import TimeSplit

__all__ = [
    "DuckDBEngine",
    "Engine",
    "LeaveLastOut",
    "Preparation",
    "PreparedFolder",
    "SparkEngine",
    "SplitRule",
    "TimeSplit",
]
