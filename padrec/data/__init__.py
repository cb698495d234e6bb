"""From files on disk to batches of semantic-ID tokens."""

from padrec.data.batches import PromptBatch, SequenceBatch
from padrec.data.datamodule import SemanticIDDataModule
from padrec.data.interactions import Interactions
from padrec.data.item_sequences import ItemSequences
from padrec.data.readers import AtSpeedReader, Dataset, LCRecReader, Reader, SyntheticReader
from padrec.data.splits import Split, leave_one_out

__all__ = [
    "AtSpeedReader",
    "Dataset",
    "Interactions",
    "ItemSequences",
    "LCRecReader",
    "PromptBatch",
    "Reader",
    "SemanticIDDataModule",
    "SequenceBatch",
    "Split",
    "SyntheticReader",
    "leave_one_out",
]
