"""Item embeddings that a target has learnt from sequences, without texts."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from padrec.catalog import Catalog, InputError
from padrec.data import Reader
from padrec.quantization.item_embeddings import EmbeddingSource, ItemEmbeddings, warn_about_zeros
from padrec.targets import TargetRecommender
from padrec.targets.backbone import token_modules


@dataclass(frozen=True)
class TargetEmbeddings(EmbeddingSource):
    """The rows of items in a target with one code per item, such as SASRec with cross-entropy over the catalog.

    SASRec: Kang and McAuley 2018. Each item has a row in the input embeddings and a row in the head; the vector holds
    both, or one if they are tied. Rows are scaled to length 1, since their length reflects frequency rather than
    context. Items that occur in similar contexts get similar rows.

    The vectors hold only what the target was trained on. Items without training interactions, whose rows were never
    trained, get vectors of zeros; a warning counts them.

    Args:
        reader: reads the data that the target was trained on, with one code per item.
        target: checkpoint or folder of the target.

    Raises:
        InputError: from `embed`, several codes per item, no target, or one of another catalog; or see the reader.
    """

    reader: Reader
    target: str

    def embed(self) -> ItemEmbeddings:
        """See `EmbeddingSource`."""
        dataset = self.reader.read()
        catalog = dataset.catalog
        vectors = self._rows(catalog)
        split = dataset.split("drop")
        unseen = torch.bincount(split.train.items, minlength=catalog.n_items) == 0
        vectors = vectors.masked_fill(unseen[:, None], 0)
        warn_about_zeros(vectors, split.source)
        return ItemEmbeddings(catalog.keys, vectors, catalog.texts, f"embeddings of {self.target}")

    def _rows(self, catalog: Catalog) -> Tensor:
        """The items' rows of the embeddings and, if it is not tied, the head: `[n, d]` or `[n, 2 d]`."""
        if catalog.n_slots != 1:
            raise InputError(f"{catalog.source}: {catalog.n_slots} codes for an item, expected one")
        target = TargetRecommender.load(self.target)
        sizes = target.vocabulary.codebook_sizes
        if sizes != catalog.codebook_sizes:
            expected = f"a target of {catalog.source} with {list(catalog.codebook_sizes)}"
            raise InputError(f"{self.target}: trained with {list(sizes)} codes, expected {expected}")
        tokens = target.vocabulary.encode(catalog.codes)[:, 0]
        rows = (module.weight.detach()[tokens] for module in token_modules(target.backbone))
        return torch.cat([normalize(row) for row in rows], dim=1)
