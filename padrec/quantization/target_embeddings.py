"""Item embeddings that a target has learnt from sequences, without any text."""

import logging
from typing import Any

import torch
from torch import Tensor

from padrec.catalog import Catalog, InputError
from padrec.data import Reader, Split, leave_one_out
from padrec.quantization.item_embeddings import EmbeddingSource, ItemEmbeddings
from padrec.targets import TargetRecommender

_LOG = logging.getLogger(__name__)


class TargetEmbeddings(EmbeddingSource):
    """What a target with one code for each item has learnt about the items: a sequence model of co-occurrence.

    Such a target is SASRec (Kang and McAuley 2018) with cross-entropy over the catalog. It has a row of its embeddings
    for each item, by which it reads the item, and a row of its head, by which it predicts it; often these are one and
    the same (`tie_word_embeddings` of its backbone), else they stand side by side in the item's vector. Items that say
    the same about what comes next, or come next behind the same, get similar rows. Each is scaled to length 1, for its
    length tells how often rather than where an item occurs.

    Only what the target was trained on is in the vectors. Items without training interactions get vectors of zeros,
    for their rows are still what they were drawn as, and are counted in a warning.

    Args:
        reader: of the data that the target was trained on, with one code for each item.
        target: checkpoint or folder of the target.
    """

    def __init__(self, reader: Reader, target: str) -> None:
        self._reader = reader
        self._target = target

    def embed(self) -> ItemEmbeddings:
        """See `EmbeddingSource`.

        Raises:
            InputError: wrong data (see the reader), several codes for an item, no target, or one of another catalog.
        """
        dataset = self._reader.read()
        catalog, found = dataset.catalog, dataset.interactions
        vectors = self._rows(catalog)
        split = found if isinstance(found, Split) else leave_one_out(found, "drop")
        unseen = torch.bincount(split.train.items, minlength=catalog.n_items) == 0
        if bool(unseen.any()):
            _LOG.warning(
                "%s: %d of %d items get vectors of zeros, for they have no training interactions",
                split.source, int(unseen.sum()), catalog.n_items,
            )  # fmt: skip
        vectors = vectors.masked_fill(unseen[:, None], 0)
        return ItemEmbeddings(catalog.keys, vectors, catalog.texts, f"embeddings of {self._target}")

    def _rows(self, catalog: Catalog) -> Tensor:
        """The items' rows of the embeddings and of a head of its own, `[n, d]` or `[n, 2 d]`."""
        if catalog.n_slots != 1:
            raise InputError(
                f"{catalog.source}: {catalog.n_slots} codes for an item, expected one: of several an item has no row "
                "of its own"
            )
        target = TargetRecommender.load(self._target)
        sizes = target.vocabulary.codebook_sizes
        if sizes != catalog.codebook_sizes:
            raise InputError(
                f"{self._target}: trained with {list(sizes)} codes, expected a target of {catalog.source} with "
                f"{list(catalog.codebook_sizes)}"
            )
        embeddings: Any = target.backbone.get_input_embeddings()
        head: Any = target.backbone.get_output_embeddings()
        tables = [embeddings.weight] if head.weight is embeddings.weight else [embeddings.weight, head.weight]
        tokens = target.vocabulary.encode(catalog.codes)[:, 0]
        return torch.cat([torch.nn.functional.normalize(table.detach()[tokens]) for table in tables], dim=1)
