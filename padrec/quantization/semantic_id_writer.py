"""Semantic IDs on disk."""

import json
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from padrec.catalog import Catalog, InputError, check_arguments
from padrec.catalog.whole_output import check_place, written_whole
from padrec.data.readers.semantic_id_index import write_index
from padrec.metrics import CodebookQuality
from padrec.quantization.collisions import add_disambiguation_slot, count_collisions, reassign_collisions
from padrec.quantization.quantizer_module import QuantizerModule
from padrec.quantization.residual_k_means import read_codebooks, write_codebooks

CODEBOOKS_FILE = "codebooks.safetensors"


class SemanticIDWriter(Callback):
    """Writes the semantic IDs that `predict` makes to a folder that `Catalog.load` reads.

    The folder also has `<folder>.index.json`, which LC-Rec and other programs read, `codebooks.safetensors`, which
    later items need, and `quantization.json`: codebook use, and collisions before and after they were resolved.

    Args:
        folder: where to write; must not exist.
        collisions: what to do with items that share an ID: `reassign` gives them the nearest free codes, `slot` appends
            a slot that numbers them, `keep` leaves them as one leaf.
        extends: folder of an earlier run with the same quantizer, whose items come first and keep their IDs; they need
            not be among the embeddings. The other items get IDs of their own by the same codebooks.
    """

    def __init__(
        self, folder: str, collisions: Literal["reassign", "slot", "keep"] = "reassign", extends: str | None = None
    ) -> None:
        check_arguments(SemanticIDWriter, locals())
        self.folder = Path(folder)
        self.collisions = collisions
        self.extends = None if extends is None else Path(extends)
        self._earlier: Catalog | None = None
        self._codes: list[Tensor] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check everything that can be checked before prediction."""
        if stage != "predict":
            return
        if not isinstance(pl_module, QuantizerModule):
            raise InputError(f"semantic IDs for {self.folder} from a {type(pl_module).__name__}, expected a quantizer")
        check_place(self.folder)
        if trainer.world_size > 1:
            raise InputError(f"semantic IDs on {trainer.world_size} processes, expected one: set trainer.devices to 1")
        self._earlier = None if self.extends is None else Catalog.load(self.extends)
        if self._earlier is not None and set(pl_module.embeddings.keys) <= set(self._earlier.keys):
            raise InputError(f"{self.extends}: has all {len(pl_module.embeddings)} items already, expected new ones")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the catalog to extend was made with these codebooks, and collisions resolved in the same way."""
        self._codes = []
        if self._earlier is None or self.extends is None:
            return
        assert isinstance(pl_module, QuantizerModule)
        expected, own = read_codebooks(self.extends / CODEBOOKS_FILE), pl_module.codebooks
        equal = (torch.equal(one.cpu(), other) for one, other in zip(own, expected, strict=False))
        if len(own) != len(expected) or not all(equal):
            made = f"made with the codebooks in its {CODEBOOKS_FILE}"
            how = "residual k-means takes them as model.init_args.codebooks, RQ-VAE the --ckpt_path of its fit"
            raise InputError(f"{self.extends}: {made}, expected a quantizer with the same: {how}")
        n_slots, found = len(expected) + (self.collisions == "slot"), self._earlier.n_slots
        if found != n_slots:
            raise InputError(f"{self.extends}: {found} slots, expected {n_slots} with collisions: {self.collisions}")

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Tensor, batch: object, *numbers: int
    ) -> None:
        """Keep the codes of one batch."""
        self._codes.append(outputs)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resolve collisions and write; all items must have been predicted, and enough semantic IDs be there."""
        assert isinstance(pl_module, QuantizerModule)
        embeddings, earlier = pl_module.embeddings, self._earlier
        codes = torch.cat(self._codes)
        if len(codes) != len(embeddings):
            raise InputError(f"semantic IDs of {len(codes)} items, expected all {len(embeddings)}: lift the limit")
        if earlier is not None:
            known = set(earlier.keys)
            new = torch.tensor([row for row, key in enumerate(embeddings.keys) if key not in known])
            codes, embeddings = codes[new], embeddings.rows(new)
        taken = None if earlier is None else earlier.codes.long()
        resolved = codes
        if self.collisions == "reassign":
            resolved = reassign_collisions(codes, embeddings.vectors, pl_module.quantizer, taken)
        elif self.collisions == "slot":
            resolved = add_disambiguation_slot(codes, taken)
        summary = _summary(codes, resolved, pl_module.quantizer.codebook_sizes, taken)
        catalog = Catalog(resolved, embeddings.keys, embeddings.texts, source=embeddings.source)
        if earlier is not None:
            catalog = earlier.followed_by(catalog)
        made_of = {"embeddings": embeddings.source, "extends": str(self.extends) if self.extends else None}
        text = json.dumps({**made_of, "resolved_by": self.collisions, **summary}, indent=2)
        with written_whole(self.folder) as part:
            catalog.save(part)
            write_index(catalog, part / f"{self.folder.resolve().name}.index.json")
            write_codebooks(part / CODEBOOKS_FILE, pl_module.codebooks)
            (part / "quantization.json").write_text(text + "\n", encoding="ascii")
        rank_zero_info(f"Semantic IDs of {catalog.n_items} items written to {self.folder}")


def _summary(
    codes: Tensor, resolved: Tensor, codebook_sizes: tuple[int, ...], taken: Tensor | None
) -> dict[str, object]:
    """What `quantization.json` says about the codes before and after collisions were resolved."""
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
