"""From a raw interaction log to a prepared folder."""

from typing import TYPE_CHECKING

from padrec.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from padrec.data.preparation.engine import DuckDBEngine as DuckDBEngine
    from padrec.data.preparation.engine import Engine as Engine
    from padrec.data.preparation.engine import SparkEngine as SparkEngine
    from padrec.data.preparation.leave_last_out import LeaveLastOut as LeaveLastOut
    from padrec.data.preparation.preparation import Preparation as Preparation
    from padrec.data.preparation.prepared_folder import PreparedFolder as PreparedFolder
    from padrec.data.preparation.split_rule import SplitRule as SplitRule
    from padrec.data.preparation.time_split import TimeSplit as TimeSplit
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
