"""What the training modules of all drafts share: a frozen target, and checkpoints of the draft alone."""

from pathlib import Path
from typing import Any

from torch import nn

from padrec.catalog import Catalog, SemanticIDVocabulary
from padrec.decoding import TransformersRunner
from padrec.drafts.draft_checkpoint import DraftCheckpoint, check_target
from padrec.targets import FrozenTarget, TargetRecommender, in_step_precision
from padrec.targets.backbone import check_positions
from padrec.training import TrainableModule, check_ids, stored_catalog, stored_vocabulary


class DraftModule(TrainableModule):
    """Trains a network against a frozen target.

    Args:
        target: checkpoint or folder of the target.
        vocabulary: the tokens.
        catalog: the items, if they are known.
        list_length: K of validation.
        compile: compile the target's layers; see `CompiledLayers`.
        **training: arguments of `TrainableModule`.

    Attributes:
        kind: see `DraftCheckpoint`.
        network: what is trained, with a transformers configuration; set by the subclass.
        settings: see `DraftCheckpoint`; set by the subclass.

    Raises:
        InputError: the target cannot be read, or has another vocabulary or other semantic IDs.
    """

    kind = "draft"
    network: Any
    settings: dict[str, Any]

    def __init__(
        self,
        target: str,
        vocabulary: SemanticIDVocabulary,
        catalog: Catalog | None,
        list_length: int,
        compile: bool,
        **training: Any,
    ) -> None:
        super().__init__(**training)
        self.vocabulary, self.catalog, self.list_length = vocabulary, catalog, list_length
        recommender = TargetRecommender.load(target)
        vocabulary.check_same(recommender.vocabulary, f"the target {target}")
        check_ids(catalog, recommender.catalog, f"the target {target}")
        self.target = FrozenTarget(recommender.backbone, recommender.fingerprint(), compile)

    def trainable_module(self) -> nn.Module:
        """The draft's own network; the target is frozen."""
        network: nn.Module = self.network
        return network

    def target_runner(self) -> TransformersRunner:
        """The target for decoding, in the precision of a step."""
        model = in_step_precision(self.target.model, self.device.type)
        return TransformersRunner(model, self.target.fingerprint)

    def setup(self, stage: str) -> None:
        """See `check_positions` and `TrainableModule.setup`."""
        super().setup(stage)
        for model in (self.target.model, self.network):
            check_positions(model.config, self.vocabulary, getattr(self.trainer, "datamodule", None))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that decoders read as a draft; see `DraftCheckpoint.write`."""
        self.checkpoint().write(Path(folder))

    def checkpoint(self) -> DraftCheckpoint:
        """The draft with its current weights."""
        weights, fingerprint = self.network.state_dict(), self.target.fingerprint
        return DraftCheckpoint(self.settings, weights, fingerprint, self.vocabulary, self.catalog, self.kind)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store what the draft was trained for."""
        super().on_save_checkpoint(checkpoint)
        checkpoint.update(self.checkpoint().description)
        if self.catalog is not None:
            checkpoint["catalog"] = self.catalog.to_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the checkpoint's target, vocabulary and semantic IDs.

        Raises:
            InputError: they differ from this draft's.
        """
        self.vocabulary.check_same(stored_vocabulary(checkpoint, self.kind), "the checkpoint")
        check_ids(self.catalog, stored_catalog(checkpoint), "the checkpoint")
        check_target(checkpoint["target_fingerprint"], self.target.fingerprint)
