"""From files on disk to batches of semantic-ID tokens."""

from padrec.data.batches import PromptBatch, SequenceBatch
from padrec.data.datamodule import SemanticIDDataModule
from padrec.data.interactions import Interactions, Split, leave_one_out
from padrec.data.item_sequences import ItemSequences
from padrec.data.logs import AmazonReviews2014, AmazonReviews2018, AmazonReviews2023, LogSource, TableLog
from padrec.data.preparation import LeaveLastOut, Preparation, SplitRule, TimeSplit
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
from padrec.data.training_rows import GeneratedLists, LoggedSequences, TrainingRows

__all__ = [
    "AmazonReviews2014",
    "AmazonReviews2018",
    "AmazonReviews2023",
    "AtSpeedReader",
    "Dataset",
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
    "Split",
    "SplitRule",
    "SyntheticReader",
    "TableLog",
    "TimeSplit",
    "TrainingRows",
    "leave_one_out",
]
