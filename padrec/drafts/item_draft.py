"""Training a draft with one pass an item."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from padrec.catalog import PositiveInt, SemanticIDVocabulary, check_arguments
from padrec.data.batches import SequenceBatch
from padrec.decoding import ItemTree
from padrec.drafts.draft_architecture import ItemEAGLE
from padrec.drafts.item_draft_network import unroll_items
from padrec.drafts.padrec_draft import PADRecDraft, Unrolling


class ItemDraft(PADRecDraft):
    """Trains a draft with one pass an item, for `ItemTree`; see `PADRecDraft` for the arguments that are not here.

    Its losses are of the passes at all tokens (`step_1`), of each of their heads (`step_2` …), and of each further
    pass with its heads. `unrolled_steps` counts passes: one for the root, one for each item after it.

    Args:
        target: checkpoint or folder of the target.
        vocabulary: the tokens; linked from the datamodule.
        rank: size of the heads, see `SequentialHeads`.
        **settings: of `PADRecDraft`, but for the architecture.

    Raises:
        InputError: see `PADRecDraft`.
    """

    def __init__(self, target: str, vocabulary: SemanticIDVocabulary, rank: PositiveInt = 256, **settings: Any) -> None:
        check_arguments(ItemDraft, locals())
        self._n_heads = vocabulary.item_length - 1
        super().__init__(target, vocabulary, architecture=ItemEAGLE(n_heads=self._n_heads, rank=rank), **settings)
        length = vocabulary.item_length
        self._expansion = ItemTree(len(self._step_weights) * length, item_length=length)
        self._step_weights = [1.0] * self._n_heads + self._step_weights

    def _unrolling(self, batch: SequenceBatch, rows: Tensor) -> Unrolling:
        n_steps = len(self._step_weights) - self._n_heads

        def unrolled(embeddings: Tensor, features: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
            slots = batch.slots[:, 1:-1]
            return unroll_items(self.network, embeddings, features, slots, n_steps, rows, self._through_steps)

        return unrolled
