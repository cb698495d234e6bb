"""From files on disk to batches of semantic-ID tokens."""

from typing import TYPE_CHECKING

from padrec.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from padrec.data.batches import PromptBatch as PromptBatch
    from padrec.data.batches import SequenceBatch as SequenceBatch
    from padrec.data.batches import TextPromptBatch as TextPromptBatch
    from padrec.data.datamodule import SemanticIDDataModule as SemanticIDDataModule
    from padrec.data.interactions import Interactions as Interactions
    from padrec.data.interactions import Split as Split
    from padrec.data.interactions import leave_one_out as leave_one_out
    from padrec.data.item_sequences import ItemSequences as ItemSequences
    from padrec.data.item_texts import ItemJSON as ItemJSON
    from padrec.data.item_texts import ItemTexts as ItemTexts
    from padrec.data.item_texts import PreparedTexts as PreparedTexts
    from padrec.data.item_texts import TextReader as TextReader
    from padrec.data.knowledge import ItemKnowledge as ItemKnowledge
    from padrec.data.knowledge import PromptSource as PromptSource
    from padrec.data.knowledge import TextPrompts as TextPrompts
    from padrec.data.knowledge import UserKnowledge as UserKnowledge
    from padrec.data.logs.amazon import AmazonReviews2014 as AmazonReviews2014
    from padrec.data.logs.amazon import AmazonReviews2018 as AmazonReviews2018
    from padrec.data.logs.amazon import AmazonReviews2023 as AmazonReviews2023
    from padrec.data.logs.source import ItemText as ItemText
    from padrec.data.logs.source import LogSource as LogSource
    from padrec.data.logs.source import LogTable as LogTable
    from padrec.data.logs.table_log import TableLog as TableLog
    from padrec.data.preparation.engine import DuckDBEngine as DuckDBEngine
    from padrec.data.preparation.engine import SparkEngine as SparkEngine
    from padrec.data.preparation.preparation import Preparation as Preparation
    from padrec.data.preparation.split_rule import LeaveLastOut as LeaveLastOut
    from padrec.data.preparation.split_rule import SplitRule as SplitRule
    from padrec.data.preparation.split_rule import TimeSplit as TimeSplit
    from padrec.data.prompt_format import PromptFormat as PromptFormat
    from padrec.data.prompt_template import PromptTemplate as PromptTemplate
    from padrec.data.readers.atspeed import AtSpeedReader as AtSpeedReader
    from padrec.data.readers.lcrec import LCRecReader as LCRecReader
    from padrec.data.readers.minionerec import MiniOneRecReader as MiniOneRecReader
    from padrec.data.readers.prepared import PreparedReader as PreparedReader
    from padrec.data.readers.reader import Dataset as Dataset
    from padrec.data.readers.reader import Reader as Reader
    from padrec.data.readers.semantic_id_index import read_index as read_index
    from padrec.data.readers.synthetic import SyntheticReader as SyntheticReader
    from padrec.data.text_prompt_datamodule import TextPromptDataModule as TextPromptDataModule
    from padrec.data.training_rows import GeneratedLists as GeneratedLists
    from padrec.data.training_rows import LoggedSequences as LoggedSequences
    from padrec.data.training_rows import TrainingRows as TrainingRows
else:
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
