"""From files on disk to batches of semantic-ID tokens."""

from padrec.data.batches import PromptBatch, SequenceBatch
from padrec.data.datamodule import SemanticIDDataModule
from padrec.data.generated_lists import GeneratedLists
from padrec.data.interactions import Interactions
from padrec.data.item_sequences import ItemSequences
from padrec.data.logged_sequences import LoggedSequences
from padrec.data.logs import AmazonReviews2014, AmazonReviews2018, AmazonReviews2023, LogSource, TableLog
from padrec.data.preparation import DuckDBEngine, LeaveLastOut, Preparation, SparkEngine, SplitRule, TimeSplit
from padrec.data.prompt_template import PromptTemplate
from padrec.data.readers import (
    AtSpeedReader,
    Dataset,
    LCRecReader,
    MiniOneRecReader,
    PreparedReader,
    Reader,
    SyntheticReader,
)
from padrec.data.splits import Split, leave_one_out
from padrec.data.training_rows import TrainingRows

__all__ = [
    "AmazonReviews2014",
    "AmazonReviews2018",
    "AmazonReviews2023",
    "AtSpeedReader",
    "Dataset",
    "DuckDBEngine",
    "GeneratedLists",
    "Interactions",
    "ItemSequences",
    "LCRecReader",
    "LeaveLastOut",
    "LogSource",
    "LoggedSequences",
    "MiniOneRecReader",
    "Preparation",
    "PreparedReader",
    "PromptBatch",
    "PromptTemplate",
    "Reader",
    "SemanticIDDataModule",
    "SequenceBatch",
    "SparkEngine",
    "Split",
    "SplitRule",
    "SyntheticReader",
    "TableLog",
    "TimeSplit",
    "TrainingRows",
    "leave_one_out",
]
