"""Semantic IDs on disk."""

import json
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from padrec.catalog import Catalog, InputError, ItemEmbeddings
from padrec.catalog.quantizers import add_disambiguation_slot, count_collisions, reassign_collisions
from padrec.data.readers.semantic_id_index import write_index
from padrec.metrics import CodebookQuality
from padrec.quantization.quantizer_module import QuantizerModule


class SemanticIDWriter(Callback):
    """Writes the semantic IDs that `predict` makes to a folder that `Catalog.load` reads.

    Beside the catalog's own files the folder has `<folder>.index.json`, which LC-Rec and other programs read, and
    `quantization.json`: codebook use and collisions before and after they were resolved.

    Args:
        folder: where to write; must not be there yet.
        collisions: what to do with items that share an ID: `reassign` gives them the nearest free codes, `slot` appends
            a slot that counts them, `keep` leaves them, so that they are one leaf.
    """

    def __init__(self, folder: str, collisions: Literal["reassign", "slot", "keep"] = "reassign") -> None:
        self.folder = Path(folder)
        self.collisions = collisions
        self._codes: list[Tensor] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See to it that the folder can be written, before the model gets ready.

        Raises:
            InputError: the folder is there already, the model is no quantizer, or there are several processes.
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

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self._codes = []

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
        resolved = self._resolve(codes, embeddings, pl_module)
        catalog = Catalog(resolved, embeddings.keys, embeddings.texts, source=embeddings.source)
        summary = quantization_summary(codes, resolved, pl_module.quantizer.codebook_sizes)
        catalog.save(self.folder)
        write_index(catalog, self.folder / f"{self.folder.resolve().name}.index.json")
        text = json.dumps({"embeddings": embeddings.source, "resolved_by": self.collisions, **summary}, indent=2)
        (self.folder / "quantization.json").write_text(text + "\n", encoding="ascii")

    def _resolve(self, codes: Tensor, embeddings: ItemEmbeddings, module: QuantizerModule) -> Tensor:
        if self.collisions == "reassign":
            return reassign_collisions(codes, embeddings.vectors, module.quantizer)
        return add_disambiguation_slot(codes) if self.collisions == "slot" else codes


def quantization_summary(codes: Tensor, resolved: Tensor, codebook_sizes: tuple[int, ...]) -> dict[str, object]:
    """What `quantization.json` says of the codes before and after collisions were resolved.

    Args:
        codes: the nearest codes, int64 `[n, L]`.
        resolved: the codes written, int64 `[n, L]` or `[n, L + 1]`.
        codebook_sizes: codes in each of the L slots.
    """
    quality = CodebookQuality(len(codes), codebook_sizes)
    quality.update(torch.arange(len(codes)), codes, torch.zeros(codes.shape))
    values = {name: value.item() for name, value in quality.compute().items()}
    slots = range(len(codebook_sizes))
    return {
        "items": len(codes),
        "codebook_sizes": list(codebook_sizes),
        "codes_used": [values[f"codes_used/slot_{slot}"] for slot in slots],
        "perplexity": [values[f"perplexity/slot_{slot}"] for slot in slots],
        "collisions_before": count_collisions(codes),
        "collisions_after": count_collisions(resolved),
        "items_with_another_id": int((codes != resolved[:, : codes.shape[1]]).any(1).sum()),
    }
