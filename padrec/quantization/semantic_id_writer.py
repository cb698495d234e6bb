"""Semantic IDs on disk."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from padrec.catalog import Catalog, InputError
from padrec.data.readers.semantic_id_index import write_index
from padrec.metrics import CodebookQuality
from padrec.quantization.codebook_file import read_codebooks, write_codebooks
from padrec.quantization.collisions import add_disambiguation_slot, count_collisions, reassign_collisions
from padrec.quantization.item_embeddings import ItemEmbeddings
from padrec.quantization.quantizer_module import QuantizerModule

CODEBOOKS_FILE = "codebooks.safetensors"


class SemanticIDWriter(Callback):
    """Writes the semantic IDs that `predict` makes to a folder that `Catalog.load` reads.

    Beside the catalog's own files the folder has `<folder>.index.json`, which LC-Rec and other programs read,
    `codebooks.safetensors`, which later items need, and `quantization.json`: codebook use and collisions before and
    after they were resolved.

    Args:
        folder: where to write; must not be there yet.
        extends: folder of an earlier run with the same quantizer; None begins a catalog. Its items keep their IDs, come
            first and need not be among the embeddings; the others get IDs of their own by the same codebooks.
        collisions: what to do with items that share an ID: `reassign` gives them the nearest free codes, `slot` appends
            a slot that counts them, `keep` leaves them, so that they are one leaf.
    """

    def __init__(
        self,
        folder: str,
        collisions: Literal["reassign", "slot", "keep"] = "reassign",
        extends: str | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.collisions = collisions
        self.extends = None if extends is None else Path(extends)
        self._earlier: Catalog | None = None
        self._codes: list[Tensor] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See to it that the folder can be written, before the model gets ready.

        Raises:
            InputError: the folder is there already, the model is no quantizer, there are several processes, or the
                catalog to extend cannot be read or has all items already.
        """
        if stage != "predict":
            return
        if self.collisions not in ("reassign", "slot", "keep"):
            raise InputError(f"collisions is {self.collisions!r}, expected 'reassign', 'slot' or 'keep'")
        if not isinstance(pl_module, QuantizerModule):
            raise InputError(f"semantic IDs for {self.folder} from a {type(pl_module).__name__}, expected a quantizer")
        if self.folder.exists():
            raise InputError(f"{self.folder}: there already, expected no such folder: move it away or choose another")
        if trainer.world_size > 1:
            raise InputError(f"semantic IDs on {trainer.world_size} processes, expected one: set trainer.devices to 1")
        self._earlier = None if self.extends is None else Catalog.load(self.extends)
        if self._earlier is not None and set(pl_module.embeddings.keys) <= set(self._earlier.keys):
            raise InputError(f"{self.extends}: has all {len(pl_module.embeddings)} items already, expected new ones")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew.

        Raises:
            InputError: the catalog to extend was made with other codebooks, or with another way with collisions.
        """
        self._codes = []
        if self._earlier is None or self.extends is None:
            return
        assert isinstance(pl_module, QuantizerModule)
        expected = read_codebooks(self.extends / CODEBOOKS_FILE)
        if not _are_equal(pl_module.codebooks, expected):
            raise InputError(
                f"{self.extends}: made with the codebooks in its {CODEBOOKS_FILE}, expected a quantizer with the "
                "same: residual k-means takes them as model.init_args.codebooks, RQ-VAE the --ckpt_path of its fit"
            )
        n_slots = len(expected) + (self.collisions == "slot")
        if self._earlier.n_slots != n_slots:
            raise InputError(
                f"{self.extends}: {self._earlier.n_slots} slots, expected {n_slots} with collisions: {self.collisions}"
            )

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the codes of one batch."""
        self._codes.append(outputs)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resolve collisions and write.

        Raises:
            InputError: not all items were predicted, or there are too few semantic IDs for them.
        """
        assert isinstance(pl_module, QuantizerModule)
        embeddings = pl_module.embeddings
        codes = torch.cat(self._codes)
        if len(codes) != len(embeddings):
            raise InputError(f"semantic IDs of {len(codes)} items, expected all {len(embeddings)}: lift the limit")
        earlier = self._earlier
        if earlier is not None:
            known = set(earlier.keys)
            new = torch.tensor([row for row, key in enumerate(embeddings.keys) if key not in known])
            codes, embeddings = codes[new], embeddings.rows(new)
        taken = None if earlier is None else earlier.codes.long()
        resolved = self._resolve(codes, embeddings, pl_module, taken)
        summary = quantization_summary(codes, resolved, pl_module.quantizer.codebook_sizes, taken)
        catalog = Catalog(resolved, embeddings.keys, embeddings.texts, source=embeddings.source)
        if earlier is not None:
            catalog = earlier.followed_by(catalog)
        catalog.save(self.folder)
        write_index(catalog, self.folder / f"{self.folder.resolve().name}.index.json")
        write_codebooks(self.folder / CODEBOOKS_FILE, pl_module.codebooks)
        made_of = {"embeddings": embeddings.source, "extends": str(self.extends) if self.extends else None}
        text = json.dumps({**made_of, "resolved_by": self.collisions, **summary}, indent=2)
        (self.folder / "quantization.json").write_text(text + "\n", encoding="ascii")
        rank_zero_info(f"Semantic IDs of {catalog.n_items} items written to {self.folder}")

    def _resolve(
        self, codes: Tensor, embeddings: ItemEmbeddings, module: QuantizerModule, taken: Tensor | None
    ) -> Tensor:
        if self.collisions == "reassign":
            return reassign_collisions(codes, embeddings.vectors, module.quantizer, taken)
        return add_disambiguation_slot(codes, taken) if self.collisions == "slot" else codes


def _are_equal(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    return len(found) == len(expected) and all(
        torch.equal(one.cpu(), other) for one, other in zip(found, expected, strict=True)
    )


def quantization_summary(
    codes: Tensor, resolved: Tensor, codebook_sizes: tuple[int, ...], taken: Tensor | None = None
) -> dict[str, object]:
    """What `quantization.json` says of the codes before and after collisions were resolved.

    Args:
        codes: the nearest codes, int64 `[n, L]`.
        resolved: the codes written, int64 `[n, L]` or `[n, L + 1]`.
        codebook_sizes: codes in each of the L slots.
        taken: IDs that earlier items keep, int64 `[m, L]` or `[m, L + 1]`.
    """
    before, after = codes, resolved
    if taken is not None:
        before, after = torch.cat([taken[:, : codes.shape[1]], codes]), torch.cat([taken, resolved])
    quality = CodebookQuality(len(codes), codebook_sizes)
    quality.update(torch.arange(len(codes)), codes, torch.zeros(codes.shape))
    values = {name: value.item() for name, value in quality.compute().items()}
    slots = range(len(codebook_sizes))
    return {
        "items": len(codes),
        "earlier_items": 0 if taken is None else len(taken),
        "codebook_sizes": list(codebook_sizes),
        "codes_used": [values[f"codes_used/slot_{slot}"] for slot in slots],
        "perplexity": [values[f"perplexity/slot_{slot}"] for slot in slots],
        "collisions_before": count_collisions(before),
        "collisions_after": count_collisions(after),
        "items_with_another_id": int((codes != resolved[:, : codes.shape[1]]).any(1).sum()),
    }
